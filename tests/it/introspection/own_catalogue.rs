//! Tests the modules and actions that an operator adds: what they grant, where they are checked,
//! and what happens to their grants after they are removed. Most tests use the example from the
//! documentation, `docs/catalogue.toml`.

use std::{collections::BTreeMap, sync::Arc};

use stacktoken::{
    config::Tuning,
    domain::catalogue_file,
    grpc::pb::v1::{
        self,
        Access::{Read, ReadWrite},
    },
};
use tempfile::TempDir;

use crate::support::{
    ManualClock, TestServer,
    checks::Http,
    clients::fields,
    issue_request, permissions,
    requests::{
        answers, batch_request, branches, list_request, modules, outcome, overlap_for,
        permit_request, update_request,
    },
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalogue.toml");

fn example(tuning: &mut Tuning) {
    tuning.rules.catalogue.file = Some(EXAMPLE.into());
}

/// Starts a server with this catalogue file.
async fn start_with(text: &str) -> TestServer {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("catalogue.toml");
    std::fs::write(&path, text).unwrap();
    TestServer::start_with(|tuning| tuning.rules.catalogue.file = Some(path)).await
}

async fn listed(server: &TestServer) -> v1::ListActionsResponse {
    let mut anybody = server.stranger().await;
    let listed = anybody
        .actions
        .list_actions(v1::ListActionsRequest {})
        .await;
    listed.unwrap().into_inner()
}

/// Returns a question about an action with this value of `is_reviewed`. The action is on a branch
/// that is named as both a branch and an alias.
fn question(name: &str, branch: &str, reviewed: Option<bool>) -> v1::ActionQuestion {
    let facts = reviewed.map(|value| ("is_reviewed".to_owned(), value));
    v1::ActionQuestion {
        name: name.into(),
        branch: branch.into(),
        branch_alias: branch.into(),
        facts: facts.into_iter().collect(),
    }
}

fn reason(answer: &v1::IntrospectResponse) -> String {
    let reason = answer.reason().as_str_name().replace("REASON_", "");
    let missing = answer.results[0].missing.clone();
    let missing = missing.map(|missing| missing.requirement.unwrap());
    missing.map_or(reason.clone(), |missing| format!("{reason} {missing:?}"))
}

/// Asks for a verdict in every way: from the store, from the cache, in a batch and as Envoy.
/// Asserts that all ways give the same answer.
async fn verdict(server: &TestServer, secret: &str, asked: v1::ActionQuestion) -> String {
    let mut service = server.service().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let request = v1::IntrospectRequest {
            token: secret.into(),
            stack_api_key: server.stack.clone(),
            actions: vec![asked.clone()],
            ..Default::default()
        };
        let answer = service.introspection.introspect(request).await.unwrap();
        seen.push(reason(&answer.into_inner()));
    }
    let mut batch = batch_request(&server.stack, &[secret]);
    batch.questions[0].actions = vec![asked.clone()];
    let answer = service.introspection.batch_introspect(batch).await.unwrap();
    seen.push(reason(answers(&answer.into_inner())[0]));
    assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:?}");
    let http = server.request("GET", "/graphql", secret);
    let http = http
        .with("branch", &asked.branch)
        .route("actions", &asked.name);
    let http = asked.facts.iter().fold(http, |http: Http, (name, value)| {
        http.route(&format!("fact.{name}"), &value.to_string())
    });
    let checked = server.outcome_of(http).await;
    let (first, _) = seen[0].split_once(' ').unwrap_or((&seen[0], ""));
    let expected = match first {
        "UNSPECIFIED" => "OK".to_owned(),
        reason => format!("403 {reason}"),
    };
    assert_eq!(checked, expected, "{asked:?}");
    seen.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_actions_has_the_catalogue_in_effect_and_its_version() {
    let (server, plain) = (
        TestServer::start_with(example).await,
        TestServer::start().await,
    );
    let (own, builtin) = (listed(&server).await, listed(&plain).await);
    let file = catalogue_file::parse(&std::fs::read_to_string(EXAMPLE).unwrap()).unwrap();
    assert_eq!(own.version, file.version());
    assert_ne!(own.version, builtin.version);
    for (server, version) in [(&server, &own.version), (&plain, &builtin.version)] {
        let metrics = server.metrics().await;
        let shown: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("stacktoken_catalogue_info"))
            .collect();
        let expected = format!("stacktoken_catalogue_info{{version=\"{version}\"}} 1");
        assert_eq!(shown, [expected]);
    }
    let added = own.actions.len() - builtin.actions.len();
    let (first, last) = own.actions.split_at(builtin.actions.len());
    assert_eq!(added, 6);
    for (own, builtin) in first.iter().zip(&builtin.actions) {
        let rule = match own.name.as_str() {
            "webhook.delete" => v1::ActionRule::Never,
            _ => builtin.rule(),
        };
        let expected = v1::Action {
            rule: rule.into(),
            ..builtin.clone()
        };
        assert_eq!(*own, expected);
    }
    let names: Vec<_> = last.iter().map(|action| action.name.as_str()).collect();
    let sorted = [
        "entry.archive",
        "experiment.launch",
        "experiment.read",
        "experiment.update",
        "segment.export",
        "segment.read",
    ];
    assert_eq!(names, sorted);
    let launch = v1::Action {
        name: "experiment.launch".into(),
        module: "experiment".into(),
        access: v1::ActionAccess::Write.into(),
        rule: v1::ActionRule::Conditional.into(),
        fact: Some(v1::Fact {
            name: "is_reviewed".into(),
            value: true,
        }),
        branch_bound: true,
    };
    assert_eq!(last[1], launch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_actions_are_judged_like_built_in_ones_in_every_way_of_asking() {
    let server = TestServer::start_with(example).await;
    let mut on_main = modules(ReadWrite, &[("experiment", ReadWrite), ("segment", Read)]);
    on_main.branches = branches(ReadWrite, &["main"], &["live"]).branches;
    let granted = [("entry", ReadWrite), ("experiment", Read)];
    let secrets = [
        ("all", permissions(ReadWrite)),
        ("reads", permissions(Read)),
        ("some", modules(ReadWrite, &granted)),
        ("entries", modules(ReadWrite, &[("entry", ReadWrite)])),
        ("on main", on_main),
    ];
    let mut tokens = BTreeMap::new();
    for (name, permissions) in secrets {
        let issued = server.token_with(name, permissions.clone()).await;
        let seen = server.see(&issued.uid).await;
        assert_eq!(seen.permissions, Some(permissions), "{name}");
        tokens.insert(name, issued.secret);
    }
    let hits = async || {
        let metrics = server.metrics().await;
        let hits = metrics
            .lines()
            .find_map(|line| line.strip_prefix("stacktoken_cache_hits_total "));
        hits.unwrap().parse::<u64>().unwrap()
    };
    let before = hits().await;
    let table = [
        ("all", "experiment.read", "dev", None, "UNSPECIFIED"),
        ("all", "experiment.update", "dev", None, "UNSPECIFIED"),
        ("all", "experiment.launch", "dev", Some(true), "UNSPECIFIED"),
        (
            "all",
            "experiment.launch",
            "dev",
            Some(false),
            "NEVER_ALLOWED",
        ),
        (
            "all",
            "experiment.launch",
            "dev",
            None,
            r#"FACT_MISSING Fact(Fact { name: "is_reviewed", value: true })"#,
        ),
        ("all", "entry.archive", "dev", None, "UNSPECIFIED"),
        ("all", "segment.export", "dev", None, "NEVER_ALLOWED"),
        ("all", "webhook.delete", "dev", None, "NEVER_ALLOWED"),
        ("all", "webhook.update", "dev", None, "UNSPECIFIED"),
        ("all", "experiment.peel", "dev", None, "ACTION_UNKNOWN"),
        ("all", "experiments.read", "dev", None, "ACTION_UNKNOWN"),
        ("reads", "experiment.read", "dev", None, "UNSPECIFIED"),
        (
            "reads",
            "experiment.update",
            "dev",
            None,
            "READ_ONLY Access(ReadWrite)",
        ),
        ("reads", "segment.export", "dev", None, "NEVER_ALLOWED"),
        ("some", "experiment.read", "dev", None, "UNSPECIFIED"),
        (
            "some",
            "experiment.update",
            "dev",
            None,
            r#"READ_ONLY Grant(ModuleGrant { module: "experiment", access: ReadWrite })"#,
        ),
        (
            "some",
            "segment.read",
            "dev",
            None,
            r#"MODULE_NOT_GRANTED Grant(ModuleGrant { module: "segment", access: Read })"#,
        ),
        ("some", "entry.archive", "dev", None, "UNSPECIFIED"),
        (
            "entries",
            "experiment.read",
            "dev",
            None,
            r#"MODULE_NOT_GRANTED Grant(ModuleGrant { module: "experiment", access: Read })"#,
        ),
        ("entries", "entry.archive", "dev", None, "UNSPECIFIED"),
        ("on main", "experiment.update", "main", None, "UNSPECIFIED"),
        ("on main", "experiment.update", "live", None, "UNSPECIFIED"),
        (
            "on main",
            "experiment.update",
            "dev",
            None,
            r#"BRANCH_NOT_GRANTED Branch("dev")"#,
        ),
        ("on main", "segment.read", "dev", None, "UNSPECIFIED"),
    ];
    for (name, action, branch, reviewed, expected) in table {
        let asked = question(action, branch, reviewed);
        let answer = verdict(&server, &tokens[name], asked).await;
        assert_eq!(answer, expected, "{name} {action} {branch}");
    }
    let asked = u64::try_from(table.len()).unwrap();
    assert!(
        hits().await - before >= 3 * asked,
        "most answers are from the cache"
    );
    let metrics = server.metrics().await;
    for name in ["experiment", "segment", "archive"] {
        assert!(!metrics.contains(name), "a label with {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_may_name_own_actions() {
    let folder = TempDir::new().unwrap();
    let routes = folder.path().join("routes.toml");
    let text = "[[routes]]\nmethod = \"GET\"\npath = \"/v3/experiments/{experiment}\"\nactions = [\"experiment.read\"]\n\
                [[routes]]\nmethod = \"PUT\"\npath = \"/v3/experiments/{experiment}\"\nactions = [\"experiment.update\", \"entry.archive\"]\n";
    std::fs::write(&routes, text).unwrap();
    let server = TestServer::start_with(|tuning| {
        example(tuning);
        tuning.rules.authz_routes = Some(routes);
    })
    .await;
    let only = |access| modules(access, &[("experiment", access)]);
    let all = server
        .token_with("all", permissions(ReadWrite))
        .await
        .secret;
    let reader = server.token_with("reader", only(Read)).await.secret;
    let writer = server.token_with("writer", only(ReadWrite)).await.secret;
    for (method, secret, wanted) in [
        ("GET", &reader, "OK"),
        ("PUT", &reader, "403 READ_ONLY"),
        ("GET", &writer, "OK"),
        ("PUT", &writer, "403 MODULE_NOT_GRANTED"),
        ("PUT", &all, "OK"),
        ("DELETE", &all, "403 ROUTE_UNKNOWN"),
    ] {
        let asked = server.request(method, "/v3/experiments/a", secret);
        assert_eq!(server.outcome_of(asked).await, wanted, "{method}");
    }
    // NEVER_ALLOWED takes precedence over QUERY_REFUSED, even for an action that only the catalogue
    // file forbids.
    for (path, wanted) in [
        (
            "/v3/webhooks/a?include_collaborators=true",
            "403 NEVER_ALLOWED",
        ),
        (
            "/v3/roles/a?include_collaborators=true",
            "403 QUERY_REFUSED",
        ),
    ] {
        let asked = server.request("DELETE", path, &all);
        assert_eq!(server.outcome_of(asked).await, wanted, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_grants_are_checked_with_the_catalogue_in_effect() {
    const GRANT: &str = "permissions.modules.grants[0].module";
    let server = TestServer::start_with(example).await;
    let mut forbidden = String::new();
    for verb in ["read", "create", "update", "delete"] {
        forbidden += &format!("[[actions]]\nname = \"role.{verb}\"\nrule = \"NEVER\"\n");
    }
    let (tight, plain) = (start_with(&forbidden).await, TestServer::start().await);
    for (server, module, expected) in [
        (&server, "experiment", None),
        (
            &server,
            "experiments",
            Some("is not a known module: use one of entry, "),
        ),
        (&server, "Experiment", Some(", app, experiment, segment")),
        (
            &server,
            "token",
            Some("is token, in which no token may ever do anything"),
        ),
        (
            &plain,
            "experiment",
            Some("is not a known module: use one of entry, "),
        ),
        (
            &tight,
            "role",
            Some("is role, in which no token may ever do anything"),
        ),
        (&tight, "webhook", None),
    ] {
        let granted = modules(Read, &[(module, Read)]);
        let request = v1::IssueRequest {
            permissions: Some(granted.clone()),
            ..issue_request(&server.stack, module)
        };
        let mut owner = server.owner().await;
        let token = server.token(&format!("{module} by update")).await;
        let paths = [
            &["permissions"][..],
            &["permissions.modules", "permissions.access"],
        ];
        let updates = paths.map(|paths| {
            let token_with = v1::Token {
                permissions: Some(granted.clone()),
                ..Default::default()
            };
            update_request(&server.stack, &token.uid, paths, token_with)
        });
        let Some(told) = expected else {
            assert_eq!(outcome(&owner.tokens.issue(request).await), "OK");
            for update in updates {
                assert_eq!(outcome(&owner.tokens.update(update).await), "OK");
            }
            continue;
        };
        let status = owner.tokens.issue(request).await.unwrap_err();
        assert_eq!(fields(&status), [GRANT]);
        assert!(status.message().contains(told), "{}", status.message());
        for update in updates {
            let status = owner.tokens.update(update).await.unwrap_err();
            assert_eq!(fields(&status), [format!("token.{GRANT}")]);
        }
    }
}

/// Stops a server and starts another one on the same store.
async fn restart(server: TestServer, set: impl FnOnce(&mut Tuning)) -> TestServer {
    let (folder, stack) = (server.data_dir.clone(), server.stack.clone());
    server.stop().await.unwrap();
    let mut server = TestServer::start_in(Arc::clone(&folder), ManualClock::new(), set).await;
    server.stack = stack;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_of_a_module_that_is_gone_are_kept_and_never_match() {
    let server = TestServer::start_with(example).await;
    let granted = modules(ReadWrite, &[("entry", Read), ("experiment", ReadWrite)]);
    let token = server.token_with("both", granted.clone()).await;
    let alone = modules(ReadWrite, &[("experiment", ReadWrite)]);
    let other = server.token_with("alone", alone.clone()).await;

    let server = restart(server, |_| {}).await;
    assert_eq!(
        server.see(&token.uid).await.permissions,
        Some(granted.clone())
    );
    let mut owner = server.owner().await;
    let list = owner
        .tokens
        .list(list_request(&server.stack))
        .await
        .unwrap();
    let list = list.into_inner().tokens.into_iter();
    let seen: BTreeMap<_, _> = list.map(|token| (token.name, token.permissions)).collect();
    assert_eq!(seen["both"], Some(granted.clone()));
    assert_eq!(seen["alone"], Some(alone));
    for (secret, action, expected) in [
        (&token.secret, "experiment.update", "ACTION_UNKNOWN"),
        (&token.secret, "entry.read", "UNSPECIFIED"),
        (&other.secret, "experiment.update", "ACTION_UNKNOWN"),
    ] {
        let answer = verdict(&server, secret, question(action, "main", None)).await;
        assert_eq!(answer, expected, "{action}");
    }
    let denied = verdict(&server, &other.secret, question("entry.read", "main", None)).await;
    assert!(denied.starts_with("MODULE_NOT_GRANTED"), "{denied}");
    let answer = server.introspect(&token.secret, &[]).await;
    assert_eq!(answer.permissions, Some(granted));

    let server = restart(server, example).await;
    for secret in [&token.secret, &other.secret] {
        let asked = question("experiment.update", "main", None);
        assert_eq!(verdict(&server, secret, asked).await, "UNSPECIFIED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_a_grant_of_a_module_that_is_gone_is_changed_like_any_other() {
    let server = TestServer::start_with(example).await;
    let mut granted = modules(ReadWrite, &[("entry", Read), ("experiment", ReadWrite)]);
    let token = server.token_with("both", granted.clone()).await;
    let server = restart(server, |_| {}).await;
    let mut owner = server.owner().await;
    let mut change = async |paths: &[&str], permissions: Option<v1::Permissions>| {
        let to = v1::Token {
            name: "renamed".into(),
            labels: [("team".to_owned(), "shop".to_owned())].into(),
            permissions,
            ..Default::default()
        };
        let request = update_request(&server.stack, &token.uid, paths, to);
        let changed = owner.tokens.update(request).await?.into_inner();
        Ok::<_, tonic::Status>(changed.token.unwrap().permissions.unwrap())
    };
    let on_main = branches(ReadWrite, &["main"], &[]);
    for path in ["name", "labels"] {
        assert_eq!(change(&[path], None).await.unwrap(), granted, "{path}");
    }
    granted.branches.clone_from(&on_main.branches);
    let narrowed = change(&["permissions.branches"], Some(on_main)).await;
    assert_eq!(narrowed.unwrap(), granted);
    let same = change(&["permissions.access"], Some(permissions(ReadWrite))).await;
    assert_eq!(same.unwrap(), granted);
    let low = change(&["permissions.access"], Some(permissions(Read))).await;
    let low = low.unwrap_err();
    assert_eq!(fields(&low), ["token.permissions.access"]);
    assert!(
        low.message().contains("granted on experiment: "),
        "{}",
        low.message()
    );
    // A change of permissions may only name modules of the current catalogue.
    for paths in [&["permissions"][..], &["permissions.modules"]] {
        let status = change(paths, Some(granted.clone())).await.unwrap_err();
        assert_eq!(
            fields(&status),
            ["token.permissions.modules.grants[1].module"]
        );
    }
    assert_eq!(
        server.see(&token.uid).await.permissions,
        Some(granted.clone())
    );
    let rotated = server.rotate(&token.uid, overlap_for(0)).await;
    assert_eq!(rotated.token.unwrap().permissions, Some(granted.clone()));
    let asked = question("entry.read", "main", None);
    assert_eq!(
        verdict(&server, &rotated.secret, asked).await,
        "UNSPECIFIED"
    );
    let before = server
        .audit()
        .await
        .into_iter()
        .find_map(|event| event.before);
    assert!(format!("{before:?}").contains("experiment"), "{before:?}");
    granted.modules = modules(ReadWrite, &[("entry", Read)]).modules;
    let without = change(&["permissions.modules"], Some(granted.clone())).await;
    assert_eq!(without.unwrap(), granted);
    let whole = permit_request(&server.stack, &token.uid, permissions(Read));
    assert_eq!(outcome(&owner.tokens.update(whole).await), "OK");
}
