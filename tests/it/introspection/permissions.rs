//! Tests what a live token may do: reads and writes (R4), and what no token may do (R5).

use std::collections::{BTreeMap, BTreeSet};

use stacktoken::grpc::pb::v1::{
    self,
    Access::{Read, ReadWrite},
    Action, ActionAccess, ActionRule,
};

use crate::support::{
    Client, TestServer, permissions,
    requests::{Issued, branches, modules},
};

/// The actions that R5 forbids. They are repeated here so that the catalogue is checked against an
/// independent list.
const NEVER: &[&str] = &[
    "branch.create",
    "branch.delete",
    "branch.update",
    "branch_alias.create",
    "branch_alias.delete",
    "branch_alias.update",
    "app.install",
    "organization.read",
    "organization.update",
    "publish_request.accept",
    "publish_request.reject",
    "stack.delete",
    "stack.read_credentials",
    "stack.transfer",
    "stack.update",
    "stack_user.invite",
    "stack_user.remove",
    "token.create",
    "token.delete",
    "token.read",
    "token.update",
    "user_session.create",
    "user_session.delete",
    "workflow.change_stage",
];

async fn catalogue(server: &TestServer) -> Vec<Action> {
    let mut service = server.service().await;
    let listed = service
        .actions
        .list_actions(v1::ListActionsRequest {})
        .await;
    listed.unwrap().into_inner().actions
}

/// Returns the question about an action that is most likely to be allowed: it has a branch, an
/// alias and the required fact.
fn favourable(action: &str) -> v1::ActionQuestion {
    v1::ActionQuestion {
        name: action.into(),
        branch: "main".into(),
        branch_alias: "live".into(),
        facts: [("has_approvers".to_owned(), false)].into(),
    }
}

/// Asks these questions, twenty at a time, and returns the outcome of each.
async fn ask(
    client: &mut Client,
    stack: &str,
    secret: &str,
    questions: &[v1::ActionQuestion],
) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for some in questions.chunks(20) {
        let request = v1::IntrospectRequest {
            token: secret.into(),
            stack_api_key: stack.into(),
            actions: some.to_vec(),
            ..Default::default()
        };
        let answer = client.introspection.introspect(request).await.unwrap();
        let answer = answer.into_inner();
        assert!(answer.active);
        for (result, question) in answer.results.iter().zip(some) {
            assert_eq!(result.name, question.name);
            let reason = result.reason().as_str_name().replace("REASON_", "");
            assert_eq!(result.allowed, reason == "UNSPECIFIED");
            seen.insert(result.name.clone(), reason);
        }
    }
    seen
}

fn allowed(seen: &BTreeMap<String, String>) -> BTreeSet<&str> {
    let allowed = seen.iter().filter(|(_, reason)| *reason == "UNSPECIFIED");
    allowed.map(|(name, _)| name.as_str()).collect()
}

fn in_catalogue(actions: &[Action], which: impl Fn(&Action) -> bool) -> BTreeSet<&str> {
    let these = actions.iter().filter(|action| which(action));
    these.map(|action| action.name.as_str()).collect()
}

/// Returns the modules of the actions for which `which` returns true.
fn in_modules(actions: &[Action], which: impl Fn(&Action) -> bool) -> BTreeSet<&str> {
    let these = actions.iter().filter(|action| which(action));
    these.map(|action| action.module.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_token_allows_exactly_the_grantable_reads() {
    let server = TestServer::start().await;
    let actions = catalogue(&server).await;
    let token = server.token_with("reader", permissions(Read)).await;
    let questions: Vec<_> = actions
        .iter()
        .map(|action| favourable(&action.name))
        .collect();
    let mut service = server.service().await;
    let seen = ask(&mut service, &server.stack, &token.secret, &questions).await;
    let reads = in_catalogue(&actions, |action| {
        action.rule() == ActionRule::Grantable && action.access() == ActionAccess::Read
    });
    assert_eq!(allowed(&seen), reads);
    let readable = |action: &&Action| {
        !["token", "organization", "user_session"].contains(&action.module.as_str())
    };
    let modules: BTreeSet<_> = actions
        .iter()
        .filter(readable)
        .map(|action| &action.module)
        .collect();
    let expected: Vec<_> = modules
        .iter()
        .map(|module| format!("{module}.read"))
        .collect();
    assert_eq!(
        expected.len(),
        23,
        "every module but three has a grantable read"
    );
    assert_eq!(reads, expected.iter().map(String::as_str).collect());
    let writes = in_catalogue(&actions, |action| {
        action.rule() != ActionRule::Never && action.access() == ActionAccess::Write
    });
    for write in writes {
        assert_eq!(seen[write], "READ_ONLY", "{write}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_write_token_allows_exactly_what_the_catalogue_grants() {
    let server = TestServer::start().await;
    let actions = catalogue(&server).await;
    let token = server.token("writer").await;
    let mut service = server.service().await;
    let questions: Vec<_> = actions
        .iter()
        .map(|action| favourable(&action.name))
        .collect();
    let seen = ask(&mut service, &server.stack, &token.secret, &questions).await;
    let grantable = in_catalogue(&actions, |action| action.rule() != ActionRule::Never);
    assert_eq!(allowed(&seen), grantable);
    let conditional = in_catalogue(&actions, |action| action.rule() == ActionRule::Conditional);
    assert_eq!(
        conditional,
        ["publish_rule.create", "publish_rule.update"].into()
    );
    for (fact, expected) in [
        (Some(true), "NEVER_ALLOWED"),
        (Some(false), "UNSPECIFIED"),
        (None, "FACT_MISSING"),
    ] {
        let question = |name: &&str| v1::ActionQuestion {
            facts: fact
                .map(|value| ("has_approvers".to_owned(), value))
                .into_iter()
                .collect(),
            ..favourable(name)
        };
        let questions: Vec<_> = conditional.iter().map(question).collect();
        let seen = ask(&mut service, &server.stack, &token.secret, &questions).await;
        assert_eq!(Vec::from_iter(seen.values()), [expected; 2], "{fact:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_token_may_ever_do_is_denied_under_the_widest_grants() {
    let server = TestServer::start().await;
    let actions = catalogue(&server).await;
    let never = in_catalogue(&actions, |action| action.rule() == ActionRule::Never);
    assert_eq!(never, NEVER.iter().copied().collect());
    let all = in_modules(&actions, |action| action.rule() != ActionRule::Never);
    let all: Vec<_> = all.into_iter().map(|module| (module, ReadWrite)).collect();
    let everything = v1::Permissions {
        branches: branches(ReadWrite, &["main"], &["live"]).branches,
        ..modules(ReadWrite, &all)
    };
    let mut service = server.service().await;
    let questions: Vec<_> = NEVER.iter().map(|name| favourable(name)).collect();
    for permissions in [permissions(ReadWrite), modules(ReadWrite, &all), everything] {
        let name = format!("token {}", server.limit().await.0);
        let Issued { secret, .. } = server.token_with(&name, permissions.clone()).await;
        let seen = ask(&mut service, &server.stack, &secret, &questions).await;
        assert_eq!(seen.len(), NEVER.len());
        for (action, reason) in seen {
            assert_eq!(reason, "NEVER_ALLOWED", "{action} under {permissions:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_the_catalogue_lacks_is_denied() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let answer = server
        .introspect(&token.secret, &["entry.updaet", "entry.read"])
        .await;
    assert!(answer.active);
    assert_eq!(answer.decision(), v1::Decision::Deny);
    assert_eq!(answer.reason(), v1::Reason::ActionUnknown);
    let allowed: Vec<_> = answer.results.iter().map(|result| result.allowed).collect();
    assert_eq!(allowed, [false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_actions_must_be_allowed_and_the_first_denied_gives_the_reason() {
    let server = TestServer::start().await;
    let narrowed = v1::Permissions {
        branches: branches(ReadWrite, &["main"], &["live"]).branches,
        ..modules(ReadWrite, &[("entry", ReadWrite), ("asset", Read)])
    };
    let token = server.token_with("deploy", narrowed).await;
    let on = |name: &str, branch: &str, alias: &str| v1::ActionQuestion {
        name: name.into(),
        branch: branch.into(),
        branch_alias: alias.into(),
        ..Default::default()
    };
    let questions = vec![
        on("entry.update", "main", ""),
        on("entry.update", "dev", "live"),
        on("asset.update", "main", ""),
        on("locale.read", "", ""),
        on("entry.read", "dev", ""),
        on("entry.read", "", "dev"),
        on("entry.read", "", ""),
        on("entry.read", "live", "main"),
    ];
    let request = v1::IntrospectRequest {
        token: token.secret,
        stack_api_key: server.stack.clone(),
        actions: questions,
        ..Default::default()
    };
    let mut service = server.service().await;
    let answer = service.introspection.introspect(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.decision(), v1::Decision::Deny);
    assert_eq!(answer.reason(), v1::Reason::ReadOnly);
    let results: Vec<_> = answer
        .results
        .iter()
        .map(|result| {
            let reason = result.reason().as_str_name();
            let missing = result.missing.clone();
            let missing = missing.map(|missing| missing.requirement.unwrap());
            missing.map_or(reason.to_owned(), |missing| format!("{reason} {missing:?}"))
        })
        .collect();
    insta::assert_snapshot!(results.join("\n"), @r#"
    REASON_UNSPECIFIED
    REASON_UNSPECIFIED
    REASON_READ_ONLY Grant(ModuleGrant { module: "asset", access: ReadWrite })
    REASON_MODULE_NOT_GRANTED Grant(ModuleGrant { module: "locale", access: Read })
    REASON_BRANCH_NOT_GRANTED Branch("dev")
    REASON_BRANCH_NOT_GRANTED BranchAlias("dev")
    REASON_BRANCH_NOT_GRANTED AnyBranch(true)
    REASON_BRANCH_NOT_GRANTED Branch("live")
    "#);
}
