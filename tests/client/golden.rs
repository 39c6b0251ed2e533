//! Requests the golden verdicts from the real server through the client, first over the wire and
//! then from the client's cache. Both must be the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use stacktoken::{
    domain::{
        catalogue::Catalogue,
        clock::Clock as _,
        permissions::{Access, Draft},
        verdict::{ActionQuestion, Facts, Missing, Reason, Verdict, evaluate},
    },
    grpc::pb::v1,
};
use stacktoken_client::{Answer, Client, Question};

use crate::{
    scripted::until,
    support::{
        TestServer, at,
        requests::{Issued, overlap_for},
    },
};

#[derive(Deserialize)]
struct Table {
    permissions: BTreeMap<String, Draft>,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    permissions: String,
    action: String,
    branch: Option<String>,
    branch_alias: Option<String>,
    #[serde(default)]
    facts: BTreeMap<String, bool>,
    #[serde(default)]
    allow: bool,
    reason: Option<String>,
    missing: Option<Value>,
}

/// Returns the requirement with the fields of `stacktoken.v1.ActionRequirement`.
fn json_of(missing: &Missing) -> Value {
    match missing {
        Missing::Access(access) => json!({ "access": access.name() }),
        Missing::Grant { module, access } => {
            json!({ "grant": { "module": module, "access": access.name() } })
        }
        Missing::Branch(name) => json!({ "branch": name }),
        Missing::BranchAlias(name) => json!({ "branch_alias": name }),
        Missing::AnyBranch => json!({ "any_branch": true }),
        Missing::Fact { name, value } => json!({ "fact": { "name": name, "value": value } }),
    }
}

fn table() -> Table {
    serde_json::from_str(include_str!("../../crates/core/tests/data/verdicts.json")).unwrap()
}

fn access(access: Access) -> i32 {
    match access {
        Access::Read => v1::Access::Read.into(),
        Access::ReadWrite => v1::Access::ReadWrite.into(),
    }
}

fn message(draft: &Draft) -> v1::Permissions {
    let grants = draft.modules.as_ref().map(|grants| {
        let grants = grants.iter().map(|grant| v1::ModuleGrant {
            module: grant.module.clone(),
            access: access(grant.access.unwrap()),
        });
        v1::ModuleGrants {
            grants: grants.collect(),
        }
    });
    v1::Permissions {
        access: access(draft.access),
        modules: grants,
        branches: draft.branches.as_ref().map(|named| v1::BranchGrants {
            branches: named.branches.clone(),
            aliases: named.aliases.clone(),
        }),
    }
}

/// Creates a client of this server and waits until its Watch stream is open, since it caches only
/// from then on.
pub async fn client_of(server: &TestServer) -> Client {
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let client = Client::builder(format!("http://{}", server.address))
        .bearer(jwt)
        .build()
        .unwrap();
    until("the client watches", || client.watch_fault().is_none()).await;
    client
}

/// Returns how many questions the server has answered.
async fn answered(server: &TestServer) -> u64 {
    let metrics = server.metrics().await;
    let verdicts = metrics
        .lines()
        .filter(|line| line.starts_with("stacktoken_verdicts_total{"));
    verdicts
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Evaluates the question locally with the facts in an answer.
fn ours(answer: &Answer, question: &Question<'_>, server: &TestServer) -> Verdict {
    let facts = Facts {
        token: answer.token().unwrap().clone(),
        stack: answer.stack().unwrap().clone(),
        permissions: answer.permissions().unwrap().clone(),
        session: answer.session().cloned().map(Box::new),
    };
    let now = server.clock.now();
    let (key, actions) = (question.stack_api_key, question.actions);
    evaluate(&Catalogue::builtin(), Some(&facts), key, actions, now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_golden_row_holds_over_the_wire_and_from_the_cache() {
    let server = TestServer::start().await;
    server.set_limit(1000).await;
    let client = client_of(&server).await;
    let table = table();
    let (mut asked, before) = (0, answered(&server).await);
    for (at, row) in table.rows.iter().enumerate() {
        let granted = message(&table.permissions[&row.permissions]);
        let token = server.token_with(&format!("row {at}"), granted).await;
        let actions = [ActionQuestion {
            name: row.action.clone(),
            branch: row.branch.clone(),
            branch_alias: row.branch_alias.clone(),
            facts: row.facts.clone(),
        }];
        let question = Question::new(&token.secret, &server.stack).about(&actions);
        let first = client.introspect(&question).await.unwrap();
        asked += 1;
        assert!(first.active() && !first.from_memory(), "{row:?}");
        let second = client.introspect(&question).await.unwrap();
        assert!(second.from_memory(), "{row:?}");
        assert_eq!(first.verdict(), second.verdict(), "{row:?}");
        assert_eq!(
            first.verdict(),
            &ours(&first, &question, &server),
            "{row:?}"
        );
        assert_eq!(first.token(), second.token());
        assert_eq!(first.stack(), second.stack());
        assert_eq!(first.permissions(), second.permissions());
        assert_eq!(second.allowed(), row.allow, "{row:?}");
        let Verdict::Active(results) = second.verdict() else {
            panic!("{row:?}: {second:?}");
        };
        let denial = results[0].denial.as_ref().err();
        assert_eq!(
            denial.map(|denial| (denial.reason.name(), denial.missing.as_ref().map(json_of))),
            row.reason
                .as_deref()
                .map(|reason| (reason, row.missing.clone())),
            "{row:?}"
        );
    }
    assert!(asked >= 60, "{asked} rows");
    let calls = answered(&server).await - before;
    assert_eq!(
        calls, asked,
        "one call for each row, and none for a cache hit"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_actions_of_an_operator_are_judged_here_as_the_server_judges_them() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalogue.toml");
    let set = |tuning: &mut stacktoken::config::Tuning| {
        tuning.rules.catalogue.file = Some(file.into());
    };
    let server = TestServer::start_with(set).await;
    let draft = r#"{"access":"READ_WRITE","modules":[{"module":"experiment","access":"READ"},{"module":"webhook","access":"READ_WRITE"}]}"#;
    let draft: Draft = serde_json::from_str(draft).unwrap();
    let token = server.token_with("own", message(&draft)).await;
    for (name, reason) in [
        ("experiment.read", None),
        ("experiment.update", Some(Reason::ReadOnly)),
        ("segment.read", Some(Reason::ModuleNotGranted)),
        ("webhook.update", None),
        ("webhook.delete", Some(Reason::NeverAllowed)),
    ] {
        let actions = [ActionQuestion {
            name: name.into(),
            ..ActionQuestion::default()
        }];
        let question = Question::new(&token.secret, &server.stack).about(&actions);
        // A new client has no facts yet, so it asks the server first and decides on its own after
        // that.
        let client = client_of(&server).await;
        for is_own in [false, true] {
            let answer = client.introspect(&question).await.unwrap();
            assert!(answer.active(), "{name}");
            assert_eq!(answer.from_memory(), is_own, "{name}");
            assert_eq!(answer.reason(), reason, "{name}");
            let mut granted = answer.permissions().unwrap().draft();
            granted.modules.as_mut().unwrap().reverse();
            assert_eq!(granted, draft, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inactive_token_is_asked_about_each_time() {
    let server = TestServer::start().await;
    let client = client_of(&server).await;
    let dead = |name: &'static str, secret: String, reason| (name, secret, reason);
    let revoked = server.token("revoked").await;
    server.revoke(&revoked.uid).await;
    let expiry = at(server.clock.seconds() + 60);
    let expired = server.token_until("expired", expiry).await;
    let replaced = server.token("replaced").await;
    server.rotate(&replaced.uid, overlap_for(0)).await;
    server.clock.advance(std::time::Duration::from_secs(60));
    let cases = [
        dead("revoked", revoked.secret, Reason::Revoked),
        dead("expired", expired.secret, Reason::Expired),
        dead("replaced", replaced.secret, Reason::Superseded),
        dead("unknown", crate::scripted::secret(), Reason::NotRecognized),
    ];
    for (name, secret, reason) in &cases {
        let before = answered(&server).await;
        for _ in 0..2 {
            let question = Question::new(secret, &server.stack);
            let answer = client.introspect(&question).await.unwrap();
            assert_eq!(answer.reason(), Some(*reason), "{name}");
            assert!(!answer.active() && !answer.from_memory(), "{name}");
        }
        assert_eq!(answered(&server).await - before, 2, "{name}");
    }
    assert_eq!(client.entries(), 0);
}

/// A question with the wrong stack API key reveals nothing, even if the token is cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_stack_key_learns_nothing_from_the_cache_either() {
    let server = TestServer::start().await;
    let client = client_of(&server).await;
    let other = server.register("Another stack").await;
    let token = server.token("a token").await;
    for cached_token in [false, true] {
        let question = Question::new(&token.secret, &other);
        let answer = client.introspect(&question).await.unwrap();
        assert_eq!(answer.reason(), Some(Reason::NotRecognized));
        assert!(answer.token().is_none() && answer.stack().is_none());
        assert_eq!(answer.from_memory(), cached_token);
        let right = Question::new(&token.secret, &server.stack);
        assert!(client.introspect(&right).await.unwrap().active());
    }
}

/// The server refuses an ill-formed question, and the client passes the refusal on even if the
/// token is cached. The client never answers a question from its cache that the server would
/// refuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_ill_formed_for_the_client_exactly_where_it_is_for_the_server() {
    let server = TestServer::start().await;
    let client = client_of(&server).await;
    let token = server.token("a token").await;
    let ask = |name: &str| ActionQuestion {
        name: name.into(),
        ..Default::default()
    };
    let (edge, over) = ("x".repeat(64), "x".repeat(65));
    let facts = |count: usize| (0..count).map(|at| (format!("fact_{at}"), true)).collect();
    let on = |branch: &str| ActionQuestion {
        branch: Some(branch.into()),
        ..ask("entry.read")
    };
    let questions = [
        vec![ask("entry.read"); 20],
        vec![ask("entry.read"); 21],
        vec![ask("entry")],
        vec![ask("Entry.read")],
        vec![ask("no_such.thing")],
        vec![on(&edge)],
        vec![on(&over)],
        vec![on(&token.secret)],
        vec![ActionQuestion {
            branch_alias: Some(over.clone()),
            ..ask("entry.read")
        }],
        vec![ActionQuestion {
            facts: facts(16),
            ..ask("entry.read")
        }],
        vec![ActionQuestion {
            facts: facts(17),
            ..ask("entry.read")
        }],
        vec![ActionQuestion {
            facts: [(over, true)].into(),
            ..ask("entry.read")
        }],
        vec![ActionQuestion {
            facts: [(String::new(), true)].into(),
            ..ask("entry.read")
        }],
    ];
    let warm = Question::new(&token.secret, &server.stack);
    assert!(client.introspect(&warm).await.unwrap().active());
    assert!(client.introspect(&warm).await.unwrap().from_memory());
    let mut service = server.service().await;
    for actions in &questions {
        let question = warm.about(actions);
        let message = v1::IntrospectRequest {
            token: token.secret.clone(),
            stack_api_key: server.stack.clone(),
            actions: actions
                .iter()
                .map(|action| v1::ActionQuestion {
                    name: action.name.clone(),
                    branch: action.branch.clone().unwrap_or_default(),
                    branch_alias: action.branch_alias.clone().unwrap_or_default(),
                    facts: action.facts.clone().into_iter().collect(),
                })
                .collect(),
            ..Default::default()
        };
        let servers = service.introspection.introspect(message).await;
        let clients = client.introspect(&question).await;
        match (servers, clients) {
            (Ok(_), Ok(answer)) => assert!(answer.from_memory(), "{actions:?}"),
            (Err(_), Err(stacktoken_client::Error::Question { fields, .. })) => {
                assert!(fields[0].0.starts_with("actions"), "{fields:?}");
            }
            other => panic!("{actions:?}: {other:?}"),
        }
    }
}

/// The client itself measures the time until the expiry: the server's clock does not advance during
/// the loop, only after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_token_is_inactive_after_it_expires() {
    let server = TestServer::start().await;
    let client = client_of(&server).await;
    let token = server
        .token_until("short", at(server.clock.seconds() + 1))
        .await;
    let question = Question::new(&token.secret, &server.stack);
    let began = std::time::Instant::now();
    while !client.introspect(&question).await.unwrap().from_memory() {}
    while client.cached(&question).is_some() {
        assert!(
            began.elapsed().as_millis() < 1100,
            "answered from the cache after the expiry"
        );
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    server.clock.advance(std::time::Duration::from_secs(1));
    let answer = client.introspect(&question).await.unwrap();
    assert_eq!(answer.reason(), Some(Reason::Expired));
}

/// A client that answers from its cache still sends a question to the server once per interval, so
/// that the server records the use of the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_records_the_use_of_a_token_that_the_client_caches() {
    let server = TestServer::start().await;
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let brief = Client::builder(format!("http://{}", server.address))
        .bearer(jwt)
        .reuse_for(std::time::Duration::from_millis(200))
        .build()
        .unwrap();
    until("the client watches", || brief.watch_fault().is_none()).await;
    let token: Issued = server.token("busy").await;
    let question = Question::new(&token.secret, &server.stack);
    let before = answered(&server).await;
    let began = std::time::Instant::now();
    let mut hits = 0;
    while began.elapsed().as_millis() < 900 {
        hits += usize::from(brief.introspect(&question).await.unwrap().from_memory());
        tokio::task::yield_now().await;
    }
    let asked = answered(&server).await - before;
    assert!((3..=6).contains(&asked), "{asked} calls");
    assert!(hits > 100, "{hits} hits");
}
