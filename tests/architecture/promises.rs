//! Checks that every promise in the documents names the tests that verify it, and that those tests
//! exist: in the tables of docs/promises.md, docs/security.md and docs/architecture.md, and
//! wherever else a document names a test or a command that runs tests.

use std::{collections::BTreeSet, fs, path::Path};

use syn::visit::{self, Visit};

use crate::{
    require_none,
    tested::{Tests, rust_files},
};

/// The documents that name tests.
const DOCUMENTS: &[&str] = &[
    "CONTRIBUTING.md",
    "README.md",
    "docs/architecture.md",
    "docs/doctor.md",
    "docs/promises.md",
    "docs/reliability.md",
    "docs/rules.md",
    "docs/security.md",
];

/// The table columns that contain only names of tests, at least one per row.
const COLUMNS: &[&str] = &["tests", "tested in", "these fail", "control"];

/// A name in backquotes that has at least this many words is taken for the name of a test.
const WORDS: usize = 5;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A Markdown table.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    // Markdown escapes a bar within a cell as `\|`.
    let inner = inner.replace("\\|", "\u{0}");
    let cells = inner
        .split('|')
        .map(|cell| cell.trim().replace('\u{0}', "|"));
    Some(cells.collect())
}

fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut within = false;
    for line in text.lines() {
        match cells(line.trim()) {
            Some(columns) if !within => tables.push(Table {
                columns,
                rows: Vec::new(),
            }),
            Some(row) if !row.iter().all(|cell| cell.chars().all(|c| c == '-')) => {
                tables.last_mut().unwrap().rows.push(row);
            }
            Some(_) => {}
            None => {
                within = false;
                continue;
            }
        }
        within = true;
    }
    tables
}

/// Returns the texts between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns the rows of every table whose first column is called `first`. Each row is given as its
/// first cell and the tests that it names.
fn map(text: &str, first: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    for table in tables(text) {
        if table.column(first) != Some(0) {
            continue;
        }
        let at = COLUMNS.iter().find_map(|name| table.column(name));
        rows.extend(table.rows.iter().map(|row| {
            let named = at.and_then(|at| row.get(at)).map(String::as_str);
            let named = quoted(named.unwrap_or_default()).map(str::to_owned);
            (row[0].clone(), named.collect())
        }));
    }
    rows
}

/// Returns a violation for each name in backquotes that should be a test but is not: every name in
/// one of the [`COLUMNS`], and every name of at least [`WORDS`] words elsewhere. Also returns a
/// violation for each row that names no test in one of the [`COLUMNS`].
fn dead_names(document: &str, text: &str, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    for table in tables(text) {
        for at in COLUMNS.iter().filter_map(|name| table.column(name)) {
            for row in &table.rows {
                let cell = row.get(at).map_or("", String::as_str);
                if quoted(cell).count() == 0 {
                    faults.push(format!("{document}: names no test: {}", row[0]));
                }
                let dead = quoted(cell).filter(|name| !tests.has(name));
                faults.extend(dead.map(|name| format!("{document}: `{name}` is not a test")));
            }
        }
    }
    let is_long = |name: &&str| {
        let last = name.rsplit("::").next().unwrap_or_default();
        last.split('_').count() >= WORDS
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
            && !last.starts_with("stacktoken_")
    };
    let prose = text.lines().filter(|line| !line.starts_with("```"));
    let named: BTreeSet<_> = prose.flat_map(quoted).filter(is_long).collect();
    let dead = named.into_iter().filter(|name| !tests.has(name));
    faults.extend(dead.map(|name| format!("{document}: `{name}` is not a test")));
    faults.sort();
    faults.dedup();
    faults
}

/// Returns a violation for each command that would run no test.
fn idle_commands(document: &str, text: &str, tests: &Tests) -> Vec<String> {
    let commands = text.lines().filter(|line| line.contains("cargo test "));
    let idle = commands.filter_map(|line| {
        let words = line.split_whitespace().take_while(|word| *word != "--");
        let words: Vec<_> = words
            .map(|word| word.trim_matches(['`', '.', ',']))
            .collect();
        let at = words.iter().position(|word| *word == "--test")?;
        let (binary, filter) = (words.get(at + 1)?, words.get(at + 2).unwrap_or(&""));
        (!tests.any_run(binary, filter)).then(|| format!("{document}: runs no test: {line}"))
    });
    idle.collect()
}

/// Returns the rules in docs/rules.md. A rule is identified by the number of its section, or by the
/// title if the section has no number.
fn rules(text: &str) -> Vec<String> {
    let titles = text.lines().filter_map(|line| line.strip_prefix("## "));
    let names = titles.map(|title| match title.split_once(' ') {
        Some((number, _)) if number[1..].parse::<u8>().is_ok() => number,
        _ => title,
    });
    names.map(str::to_owned).collect()
}

fn firsts(rows: &[(String, Vec<String>)]) -> Vec<String> {
    rows.iter().map(|(first, _)| first.clone()).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests = Tests::of_the_workspace();
    require_none(
        DOCUMENTS
            .iter()
            .flat_map(|document| dead_names(document, &read(document), &tests)),
    );
}

#[test]
fn every_command_in_a_document_runs_a_test() {
    let tests = Tests::of_the_workspace();
    require_none(
        DOCUMENTS
            .iter()
            .flat_map(|document| idle_commands(document, &read(document), &tests)),
    );
}

#[test]
fn every_rule_names_the_tests_that_would_miss_it() {
    let rows = map(&read("docs/promises.md"), "rule");
    assert_eq!(firsts(&rows), rules(&read("docs/rules.md")));
}

#[test]
fn every_promise_of_the_readme_names_the_tests_that_would_miss_it() {
    let rows = firsts(&map(&read("docs/promises.md"), "promise"));
    let promised = firsts(&map(&read("README.md"), "promise"));
    assert!(!promised.is_empty(), "README.md has no table of promises");
    let missing = promised.iter().filter(|promise| !rows.contains(promise));
    require_none(missing.map(|promise| format!("docs/promises.md: no row for: {promise}")));
}

/// Returns a violation for each row of the table of faults that names a test that does not exist,
/// or names none and does not say why, or does not say what its tests assert.
fn uncovered(table: &Table, tests: &Tests) -> Vec<String> {
    let cell = |row: &[String], name| row[table.column(name).unwrap()].clone();
    let mut faults = Vec::new();
    for row in &table.rows {
        let (id, covered) = (&row[0], cell(row, "covered by"));
        let dead = quoted(&covered).filter(|name| !tests.has(name));
        faults.extend(dead.map(|name| format!("{id}: `{name}` is not a test")));
        let needed = if covered.is_empty() {
            "not done"
        } else {
            "asserted"
        };
        if cell(row, needed).is_empty() {
            faults.push(format!("{id}: nothing under `{needed}`"));
        }
    }
    faults
}

#[test]
fn every_fault_names_its_tests_or_says_why_there_are_none() {
    let tests = Tests::of_the_workspace();
    let tables = tables(&read("docs/reliability.md"));
    let table = tables.iter().find(|table| table.column("id") == Some(0));
    let table = table.expect("the table of faults");
    let ids: Vec<_> = table.rows.iter().map(|row| row[0].clone()).collect();
    let known = |letter, count| (1..=count).map(move |number| format!("{letter}{number}"));
    assert_eq!(
        ids,
        known('F', 30).chain(known('S', 17)).collect::<Vec<_>>()
    );
    require_none(uncovered(table, &tests));
}

#[test]
fn a_fault_without_a_test_or_a_reason_is_reported() {
    let tests = Tests::of_the_workspace();
    let head = "| id | covered by | asserted | not done |\n|---|---|---|---|\n";
    for (row, faults) in [
        ("| F1 | `a_circle_of_files_is_reported` | 0 lost | |", 0),
        ("| F1 | | | takes a day |", 0),
        ("| F1 | | | |", 1),
        ("| F1 | `a_circle_of_files_is_reported` | | |", 1),
        ("| F1 | `gone` | 0 lost | |", 1),
    ] {
        let tables = tables(&format!("{head}{row}\n"));
        assert_eq!(uncovered(&tables[0], &tests).len(), faults, "{row}");
    }
}

#[test]
fn a_name_that_is_no_test_is_reported_wherever_it_stands() {
    let tests = Tests::of_the_workspace();
    for (text, faults) in [
        ("| a | tests |\n|---|---|\n| x | `no_such` |\n", 1),
        (
            "| a | tested in |\n|---|---|\n| x | `domain::secret` |\n",
            1,
        ),
        ("| a | control |\n|---|---|\n| x | nothing |\n", 1),
        ("Tried by `a_test_that_is_not_there`.", 1),
        (
            "| a | tests |\n|---|---|\n| x | `a_circle_of_files_is_reported` |\n",
            0,
        ),
        ("`architecture::a_circle_of_files_is_reported`", 0),
        ("`replicas::a_circle_of_files_is_reported`", 1),
        ("`any_one_character_change_is_refused`", 0),
        ("`conformance::the_audit_reads_alike`", 0),
    ] {
        assert_eq!(dead_names("x", text, &tests).len(), faults, "{text}");
    }
    for (line, faults) in [
        ("cargo test --test it tls::reload -- --nocapture", 0),
        ("X=1 cargo test --test it tls::nothing -- --nocapture", 1),
        ("cargo test --test gone", 1),
        ("cargo test --all-features", 0),
        ("Run `cargo test --test architecture promises`.", 0),
    ] {
        assert_eq!(idle_commands("x", line, &tests).len(), faults, "{line}");
    }
}

/// The safeguards that tests switch off: for each struct expression, the fields that it sets.
#[derive(Default)]
struct Controls(Vec<Vec<String>>);

impl<'ast> Visit<'ast> for Controls {
    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        let last = item.path.segments.last();
        if last.is_some_and(|last| last.ident == "Safeguards") && item.rest.is_some() {
            let fields = item.fields.iter().map(|field| match &field.member {
                syn::Member::Named(name) => name.to_string(),
                syn::Member::Unnamed(at) => at.index.to_string(),
            });
            self.0.push(fields.collect());
        }
        visit::visit_expr_struct(self, item);
    }
}

/// The fields of the struct `Safeguards` that a file defines.
#[derive(Default)]
struct Safeguards(Vec<String>);

impl<'ast> Visit<'ast> for Safeguards {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if item.ident == "Safeguards" {
            let names = item.fields.iter().filter_map(|field| field.ident.as_ref());
            self.0.extend(names.map(ToString::to_string));
        }
    }
}

fn safeguards(file: &str) -> Vec<String> {
    let mut found = Safeguards::default();
    found.visit_file(&syn::parse_file(&read(file)).unwrap());
    assert!(!found.0.is_empty(), "{file} has no safeguards");
    found.0
}

fn controls(folder: &str) -> Vec<Vec<String>> {
    let mut found = Controls::default();
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
        let text = fs::read_to_string(file).unwrap();
        found.visit_file(&syn::parse_file(&text).unwrap());
    }
    found.0
}

#[test]
fn a_control_switches_off_exactly_one_safeguard() {
    let controls = controls("tests");
    let many = controls.iter().filter(|fields| fields.len() != 1);
    require_none(
        many.map(|fields| format!("a control switches off more than one safeguard: {fields:?}")),
    );
}

#[test]
fn every_safeguard_has_a_control_of_its_own() {
    for (file, folder) in [
        ("src/app/safeguards.rs", "tests/replicas"),
        ("tests/model/failover/mod.rs", "tests/model/failover"),
        ("tests/model/freshness/state.rs", "tests/model/freshness"),
        ("tests/model/rotation/mod.rs", "tests/model/rotation"),
        (
            "tests/model/unknown_outcome/mod.rs",
            "tests/model/unknown_outcome",
        ),
    ] {
        let controls = controls(folder);
        let is_tried = |name: &String| controls.contains(&vec![name.clone()]);
        let untried = safeguards(file).into_iter().filter(|name| !is_tried(name));
        require_none(untried.map(|name| format!("{folder}: no control switches off `{name}`")));
    }
    let named = firsts(&map(&read("docs/promises.md"), "safeguard"));
    let named: BTreeSet<_> = named.iter().flat_map(|first| quoted(first)).collect();
    let unnamed = safeguards("src/app/safeguards.rs").into_iter();
    let unnamed = unnamed.filter(|name| !named.contains(name.as_str()));
    require_none(unnamed.map(|name| format!("docs/promises.md: no row for `{name}`")));
}
