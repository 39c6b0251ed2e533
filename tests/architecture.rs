//! Checks the dependency rules: which modules each module may use, and which external crates and
//! paths only certain modules may name. Also checks that every file starts with a `//!` comment and
//! is not too long. The tables below list what is allowed; everything else is a violation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::pedantic,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "architecture/changes.rs"]
mod changes;
#[path = "architecture/dates.rs"]
mod dates;
#[path = "architecture/generated.rs"]
mod generated;
#[path = "architecture/links.rs"]
mod links;
#[path = "architecture/promises.rs"]
mod promises;
#[path = "architecture/skips.rs"]
mod skips;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/tested.rs"]
mod tested;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use source::{CRATES, Segments, Source};

/// The modules that each module may use. A module may use only modules in the rows above its own,
/// so there are no cycles.
const LAYERS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("client", &["core"]),
    ("domain", &["core"]),
    ("config", &[]),
    ("metrics", &[]),
    ("telemetry", &["config"]),
    ("auth", &["core", "domain", "telemetry"]),
    (
        "store",
        &["core", "domain", "config", "metrics", "telemetry"],
    ),
    (
        "app",
        &["core", "domain", "config", "metrics", "telemetry", "store"],
    ),
    // Not `auth`: the caller is authenticated before a handler runs.
    (
        "grpc",
        &[
            "core",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "store",
            "app",
        ],
    ),
    // `http` calls RPCs as a client does, so it needs neither the use cases nor the authenticator.
    ("http", &["core", "domain", "grpc"]),
    (
        "server",
        &[
            "core",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "auth",
            "store",
            "app",
            "grpc",
            "http",
        ],
    ),
    (
        "cli",
        &[
            "core",
            "domain",
            "config",
            "metrics",
            "telemetry",
            "auth",
            "store",
            "app",
            "grpc",
            "server",
        ],
    ),
    ("main", &["cli"]),
];

/// External crates that a module must not name, in addition to those restricted by
/// [`NAMED_ONLY_IN`]. `core` must run without a runtime and without a clock.
const NEVER_IN: &[(&str, &[&str])] = &[("core", &["tokio", "rustix", "tracing"])];

/// The modules that use gRPC. In `cli`, only the commands that call a server use it, as any other
/// client does.
const GRPC: &[&str] = &[
    "grpc/",
    "http/",
    "server/",
    "client/",
    "cli/client/",
    "cli/connect.rs",
];

/// Paths that only the listed files may name. An entry that ends with `/` is a folder, any other
/// entry is a file. A path that ends with `::` matches everything below it, but not the path
/// itself.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("sea_orm", &["store/"]),
    ("sea_orm_migration", &["store/"]),
    ("sqlx", &["store/"]),
    ("tonic", GRPC),
    ("tonic_health", GRPC),
    ("tonic_prost", GRPC),
    ("tonic_reflection", GRPC),
    ("tonic_types", GRPC),
    ("prost", GRPC),
    ("prost_types", GRPC),
    ("envoy_types", GRPC),
    ("crate::grpc::pb", GRPC),
    ("tonic::Status::", &["grpc/status.rs"]),
    ("std::env", &["config.rs", "cli/"]),
    (
        "std::time::SystemTime",
        &["domain/clock.rs", "client/clock.rs"],
    ),
    ("std::time::Instant", &["domain/clock.rs"]),
    ("tokio::time::Instant", &["domain/clock.rs"]),
    ("time::OffsetDateTime::now_utc", &["domain/clock.rs"]),
    ("getrandom", &["core/entropy.rs"]),
    ("clap", &["config.rs", "config/", "cli/"]),
    ("axum", &["server/", "http/"]),
    ("hyper", &["server/connections/", "server/admin.rs"]),
    (
        "rustls",
        &["auth/", "server/tls/", "server/connections/", "cli/mod.rs"],
    ),
    ("x509_parser", &["auth/certificates.rs", "server/tls/"]),
    ("opentelemetry", &["telemetry/"]),
    ("opentelemetry_sdk", &["telemetry/"]),
    ("opentelemetry_otlp", &["telemetry/"]),
    ("tracing_opentelemetry", &["telemetry/"]),
];

/// Files below `src` that are not modules. A module in the same folder reads each of them with an
/// include macro.
const DATA: &[&str] = &[
    "client/generated/stacktoken.v1.rs",
    "domain/routes/builtin.toml",
    "http/openapi.json",
];

/// The maximum number of lines in a file that is not listed in [`LONG`].
const LINES: usize = 400;

/// Files that may exceed [`LINES`], each with the reason.
const LONG: &[(&str, &str)] = &[];

fn crate_sources() -> Vec<Source> {
    let crates = CRATES.iter().flat_map(|name| {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crates/{name}/src"));
        Source::tree_of_crate(name, &src)
    });
    Source::tree(&src()).into_iter().chain(crates).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn layer(module: &[String]) -> &str {
    module.first().map_or("lib", String::as_str)
}

/// Returns the name of the top-level module that a path is in, if the path is inside the crate.
fn target(path: &Segments) -> Option<&str> {
    let inside = path.first().is_some_and(|first| first == "crate");
    let layer = path.get(1).filter(|_| inside)?;
    LAYERS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| name == layer)
}

fn wrong_directions(source: &Source) -> Vec<String> {
    let from = layer(&source.module);
    let allowed = LAYERS.iter().find(|(name, _)| *name == from);
    let allowed = allowed.map_or(&[][..], |(_, layers)| *layers);
    let edges: BTreeSet<_> = source.names.iter().filter_map(target).collect();
    let never = NEVER_IN.iter().filter(|(name, _)| *name == from);
    let never = never.flat_map(|(_, names)| names.iter());
    let beyond = source.names.iter().filter_map(|path| {
        let first = path
            .first()
            .filter(|first| never.clone().any(|name| name == *first))?;
        Some(format!("{}: names `{first}`", source.file))
    });
    let beyond: BTreeSet<_> = beyond.collect();
    edges
        .into_iter()
        .filter(|to| *to != from && !allowed.contains(to))
        .map(|to| {
            format!(
                "{}: `{from}` uses `{to}`; it may use {allowed:?}",
                source.file
            )
        })
        .chain(beyond)
        .collect()
}

fn out_of_place(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, places) in NAMED_ONLY_IN {
        let at_home = places.iter().any(|place| {
            if place.ends_with('/') {
                source.file.starts_with(place)
            } else {
                source.file == *place
            }
        });
        let is_named = |path: &&Segments| {
            let path = path.join("::");
            match name.strip_suffix("::") {
                Some(_) => path.starts_with(name),
                None => path == *name || path.starts_with(&format!("{name}::")),
            }
        };
        if let Some(path) = source.names.iter().find(is_named).filter(|_| !at_home) {
            let path = path.join("::");
            faults.push(format!(
                "{}: names `{path}`; only {places:?} may",
                source.file
            ));
        }
    }
    faults
}

fn ill_formed(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    if !source.text.starts_with("//!") {
        faults.push(format!(
            "{}: does not start with a //! comment",
            source.file
        ));
    }
    let lines = source.text.lines().count();
    let is_listed = LONG.iter().any(|(file, _)| *file == source.file);
    if lines > LINES && !is_listed {
        faults.push(format!(
            "{}: has {lines} lines; split it, or give the reason in LONG",
            source.file
        ));
    }
    faults
}

/// Returns a violation for each file that is in a dependency cycle with other files of its module.
/// A folder's `mod.rs` and a crate's `lib.rs` are exempt, because they and their submodules always
/// use each other.
fn circles(sources: &[Source]) -> Vec<String> {
    let file_of: BTreeMap<String, &str> = sources
        .iter()
        .filter(|source| !source.file.ends_with("mod.rs") && !source.file.ends_with("lib.rs"))
        .map(|source| (source.module.join("::"), source.file.as_str()))
        .collect();
    let uses = |source: &Source| -> BTreeSet<&str> {
        let leads = |path: &Segments| {
            let longest = (2..=path.len())
                .rev()
                .find_map(|end| file_of.get(&path[1..end].join("::")).copied());
            longest.filter(|file| path[0] == "crate" && *file != source.file)
        };
        source.names.iter().filter_map(leads).collect()
    };
    let edges: BTreeMap<&str, BTreeSet<&str>> = sources
        .iter()
        .map(|source| (source.file.as_str(), uses(source)))
        .collect();
    let reachable = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = edges[start].iter().copied().collect();
        while let Some(file) = todo.pop() {
            if seen.insert(file) {
                todo.extend(&edges[file]);
            }
        }
        seen
    };
    edges
        .keys()
        .filter(|file| reachable(file).contains(*file))
        .map(|file| format!("{file}: is in a dependency cycle of files"))
        .collect()
}

fn require_none(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<_> = faults.into_iter().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_uses_only_those_it_may() {
    require_none(crate_sources().iter().flat_map(wrong_directions));
}

#[test]
fn the_table_of_layers_has_no_circle() {
    for (at, (name, uses)) in LAYERS.iter().enumerate() {
        let above: Vec<_> = LAYERS[..at].iter().map(|(name, _)| *name).collect();
        for used in *uses {
            assert!(above.contains(used), "{name} uses {used}");
        }
    }
}

#[test]
fn every_module_of_the_crate_is_in_the_table_of_layers() {
    let layers: BTreeSet<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    let sources = crate_sources();
    let found: BTreeSet<_> = sources.iter().map(|source| layer(&source.module)).collect();
    let found: BTreeSet<_> = found.into_iter().filter(|layer| *layer != "lib").collect();
    assert_eq!(found, layers);
}

#[test]
fn every_file_below_src_is_part_of_its_crate() {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = CRATES.map(|name| (format!("{name}/"), root.join(format!("crates/{name}/src"))));
    let mut found = BTreeSet::new();
    for (name, folder) in [(String::new(), src())].into_iter().chain(folders) {
        let mut here = Vec::new();
        files(&folder, &mut here);
        found.extend(here.iter().map(|path| {
            let path = path.strip_prefix(&folder).unwrap();
            format!("{name}{}", path.to_str().unwrap())
        }));
    }
    let known: BTreeSet<_> = crate_sources()
        .into_iter()
        .map(|source| source.file)
        .chain(DATA.iter().map(|file| (*file).to_owned()))
        .collect();
    assert_eq!(found, known);
}

#[test]
fn what_belongs_to_one_module_is_named_there_only() {
    require_none(crate_sources().iter().flat_map(out_of_place));
}

#[test]
fn every_file_says_what_it_owns_and_is_short_enough_to_read() {
    require_none(crate_sources().iter().flat_map(ill_formed));
}

#[test]
fn a_file_is_listed_as_long_only_while_it_is() {
    let sources = crate_sources();
    for (file, _) in LONG {
        let source = sources.iter().find(|source| source.file == *file);
        let lines = source.map_or(0, |source| source.text.lines().count());
        assert!(
            lines > LINES,
            "{file} has {lines} lines: remove it from LONG"
        );
    }
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_a_circle() {
    require_none(circles(&crate_sources()));
}

/// Returns the violations that a file with this content would have.
fn faults(file: &str, text: &str) -> Vec<String> {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<_> = module.split('/').collect();
    let source = Source::parse(file, &module, &format!("//! A file.\n{text}"));
    [wrong_directions(&source), out_of_place(&source)].concat()
}

#[test]
fn a_forbidden_edge_is_reported_however_it_is_written() {
    for (file, text) in [
        ("domain/made_up.rs", "use crate::store::Store;"),
        (
            "domain/made_up.rs",
            "use crate::{domain::id, store::Store as Kept};",
        ),
        ("domain/made_up.rs", "use super::super::store::Store;"),
        (
            "domain/made_up.rs",
            "fn f() -> crate::store::Store { todo!() }",
        ),
        (
            "domain/made_up.rs",
            "mod inner { use super::super::super::app::App; }",
        ),
        (
            "domain/made_up.rs",
            "macro_rules! m { () => { $crate::app::App } }",
        ),
        (
            "domain/made_up.rs",
            "fn f() { println!(\"{}\", crate::app::NAME); }",
        ),
        ("domain/made_up.rs", "use crate::metrics::Metrics;"),
        ("store/made_up.rs", "use crate::app::App;"),
        ("core/made_up.rs", "use tokio::sync::Mutex;"),
        ("core/made_up.rs", "fn f() { tracing::info!(\"x\") }"),
        ("domain/made_up.rs", "use stacktoken_client::Client;"),
        ("client/made_up.rs", "use stacktoken::app::Error;"),
        ("client/made_up.rs", "use sqlx::Pool;"),
        ("grpc/made_up.rs", "use stacktoken_client::Client;"),
        ("app/made_up.rs", "use crate::grpc::status;"),
        ("app/made_up.rs", "use crate::auth::Authenticator;"),
        ("grpc/made_up.rs", "use crate::auth::policy;"),
        ("grpc/made_up.rs", "use crate::server::health;"),
        ("auth/made_up.rs", "use crate::metrics::Metrics;"),
        ("server/made_up.rs", "use crate::cli::Cli;"),
        ("metrics.rs", "use crate::config::Tuning;"),
        ("config.rs", "use crate::domain::id;"),
        ("telemetry.rs", "use crate::metrics::Metrics;"),
        ("main.rs", "use stacktoken::server;"),
    ] {
        assert_eq!(faults(file, text).len(), 1, "{file}: {text}");
    }
}

#[test]
fn a_name_outside_its_module_is_reported_however_it_is_written() {
    for (file, text) in [
        ("app/made_up.rs", "use sea_orm::EntityTrait;"),
        ("app/made_up.rs", "fn f(_: sea_orm::DbErr) {}"),
        ("app/made_up.rs", "use sqlx as database;"),
        ("app/made_up.rs", "use tonic::Code;"),
        ("store/made_up.rs", "#[derive(prost::Message)] struct M;"),
        ("cli/serve.rs", "use crate::grpc::pb::v1;"),
        ("server/made_up.rs", "use std::{env, fs};"),
        ("store/made_up.rs", "fn f() { std::env::var(\"HOME\"); }"),
        ("app/made_up.rs", "use std::time::{Duration, Instant};"),
        (
            "app/made_up.rs",
            "use std::time; fn f() { time::SystemTime::now(); }",
        ),
        ("server/made_up.rs", "use tokio::time::Instant;"),
        ("app/made_up.rs", "fn f() { getrandom::fill(&mut []); }"),
        (
            "grpc/made_up.rs",
            "fn f() { tonic::Status::internal(\"x\"); }",
        ),
        (
            "grpc/made_up.rs",
            "use tonic::{Code, Status}; fn f() { Status::new(Code::Ok, \"x\"); }",
        ),
        (
            "server/made_up.rs",
            "use tonic::Status as Told; fn f() { Err(Told::not_found(\"x\")) }",
        ),
    ] {
        assert_eq!(faults(file, text).len(), 1, "{file}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (file, text) in [
        (
            "server/made_up.rs",
            "use crate::{auth::policy, grpc::status, metrics};",
        ),
        (
            "grpc/made_up.rs",
            "use tonic::{Status, Code}; fn f() -> Status { g(Code::Ok) }",
        ),
        ("telemetry.rs", "use crate::config::Log;"),
        (
            "client/made_up.rs",
            "use crate::pb::v1; use stacktoken_core::{facts_cache::Cache, lease};",
        ),
        (
            "cli/client/made_up.rs",
            "use crate::grpc::pb::v1; use tonic::Code;",
        ),
        (
            "domain/clock.rs",
            "use std::time::Instant; fn f() { Instant::now(); }",
        ),
        (
            "domain/made_up.rs",
            "#[cfg(test)] mod tests { use super::*; use super::super::id; }",
        ),
    ] {
        assert_eq!(faults(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn a_file_without_an_opening_comment_or_too_long_is_reported() {
    let bare = Source::parse("app/made_up.rs", &["app", "made_up"], "fn f() {}");
    assert_eq!(ill_formed(&bare).len(), 1);
    let long = format!("//! A file.\n{}", "fn f() {}\n".repeat(LINES));
    let long = Source::parse("app/made_up.rs", &["app", "made_up"], &long);
    assert_eq!(ill_formed(&long).len(), 1);
}

#[test]
fn a_circle_of_files_is_reported() {
    let one = Source::parse("app/one.rs", &["app", "one"], "use super::two::Two;");
    let two = Source::parse(
        "app/two.rs",
        &["app", "two"],
        "fn f(_: crate::app::one::One) {}",
    );
    let three = Source::parse("app/three.rs", &["app", "three"], "use super::one::One;");
    let found = circles(&[one, two, three]);
    assert_eq!(found.len(), 2, "{found:?}");
}
