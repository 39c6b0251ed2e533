//! Each RPC as every kind of caller, with a request that the right one is granted.

use std::{collections::BTreeSet, time::Duration};

use prost_reflect::DynamicMessage;
use stacktoken::{
    auth::policy,
    grpc::pb::audit::v1::{AuditAction, AuditEvent, AuditOutcome, ListRequest},
};
use tonic::Code;

use super::table::{Row, TABLE, Whom, World, as_part};
use crate::support::{
    TestServer,
    raw::{Part, call, methods, outcome, path_of},
};

const GRANTED: (Code, &str) = (Code::Ok, "");
const WRONG_ROLE: (Code, &str) = (Code::PermissionDenied, "ROLE_REQUIRED");
const NO_PART: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");

fn expected(whom: Whom, part: Part) -> (Code, &'static str) {
    use Part::{Admin, Introspector, Operator, Owner, Stranger};
    match (whom, part) {
        (Whom::Anyone, _)
        | (Whom::Introspectors, Introspector)
        | (Whom::Operators | Whom::GovernorsAndOperators, Operator)
        | (Whom::Governors | Whom::GovernorsAndOperators, Owner | Admin) => GRANTED,
        (Whom::Governors | Whom::GovernorsAndOperators, Stranger) => NO_PART,
        _ => WRONG_ROLE,
    }
}

/// What the audit has of this request.
async fn audited(server: &TestServer, request_id: &str) -> Vec<AuditEvent> {
    let request = ListRequest {
        page_size: 100,
        ..Default::default()
    };
    let mut operator = server.operator().await;
    let listed = operator.audit.list(request).await.unwrap().into_inner();
    let ours = listed
        .events
        .into_iter()
        .filter(|event| event.request_id == request_id);
    ours.collect()
}

fn action_of(row: &Row) -> Option<String> {
    let rule = policy::rule(row.path).unwrap();
    rule.action
        .map(|action| format!("AUDIT_ACTION_{}", action.name().to_uppercase()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_is_granted_to_whom_it_is_for_and_to_nobody_else() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for row in TABLE {
        // Nothing that is refused changes anything, so the refused may share a world.
        let shared = World::new(&server).await;
        for part in Part::ALL {
            let wanted = expected(row.whom, part);
            let world = match wanted == GRANTED && row.changes {
                true => &World::new(&server).await,
                false => &shared,
            };
            let request = (row.request)(world);
            let answered = call(&channel, row.path, as_part(&server, part), request).await;
            let (code, reason) = outcome(&answered);
            assert_eq!((code, reason.as_str()), wanted, "{} {part:?}", row.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_of_the_type_that_the_contract_names() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for method in methods() {
        let path = path_of(&method);
        let row = TABLE.iter().find(|row| row.path == path).unwrap();
        let world = World::new(&server).await;
        let caller = as_part(&server, super::table::right_caller(row.whom));
        let answered = call(&channel, row.path, caller, (row.request)(&world)).await;
        let answer = DynamicMessage::decode(method.output(), answered.unwrap().as_slice());
        let answer = answer.unwrap();
        assert_eq!(answer.unknown_fields().count(), 0, "{path}");
        assert!(answer.fields().count() > 0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_leaves_exactly_one_row_in_the_audit_and_a_read_none() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for (at, row) in TABLE.iter().enumerate() {
        // What this call leaves is on the first page, however many came before.
        server.clock.advance(Duration::from_secs(1));
        let world = World::new(&server).await;
        let request_id = format!("the-call-{at}");
        let part = super::table::right_caller(row.whom);
        let sent = as_part(&server, part).and("x-request-id", request_id.as_bytes());
        let answered = call(&channel, row.path, sent, (row.request)(&world)).await;
        answered.unwrap_or_else(|status| panic!("{}: {status:?}", row.path));
        let events = audited(&server, &request_id).await;
        assert_eq!(events.len(), usize::from(row.changes), "{}", row.path);
        for event in events {
            assert_eq!(event.outcome(), AuditOutcome::Done, "{}", row.path);
            assert_eq!(event.action().as_str_name(), action_of(row).unwrap());
            assert_ne!(event.action(), AuditAction::Unspecified);
            assert_eq!(event.actor.unwrap().subject, part.subject(), "{}", row.path);
            assert_eq!(event.occurred_at.unwrap().seconds, server.clock.seconds());
            assert_eq!((event.count, event.reason.as_str()), (1, ""));
            let is_new = row.path.ends_with("/Register");
            assert_eq!(event.stack_api_key == world.stack, !is_new, "{}", row.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_known_caller_is_in_the_audit_once_with_a_count_and_changes_nothing() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let world = World::new(&server).await;
    let before = server.audit().await.len();
    let mut wanted = BTreeSet::new();
    for row in TABLE {
        for part in Part::ALL {
            let (code, reason) = expected(row.whom, part);
            if code == Code::Ok {
                continue;
            }
            for _ in 0..2 {
                let request = (row.request)(&world);
                let answered = call(&channel, row.path, as_part(&server, part), request).await;
                assert_eq!(answered.unwrap_err().code(), code);
            }
            // Refused verdicts are metrics, never rows (R14).
            if let Some(action) = action_of(row) {
                wanted.insert((action, part.subject().to_owned(), reason.to_owned(), 2));
            }
        }
    }
    assert_eq!(server.audit().await.len(), before, "a refusal was done");
    let (data_dir, clock) = (server.data_dir.clone(), server.clock.clone());
    server.stop().await.unwrap();
    let server = TestServer::start_in(data_dir, clock, |_| {}).await;
    let mut operator = server.operator().await;
    let (mut found, mut page_token) = (Vec::new(), String::new());
    for _ in 0..20 {
        let request = ListRequest {
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let page = operator.audit.list(request).await.unwrap().into_inner();
        found.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let refused = found
        .iter()
        .filter(|event| event.outcome() == AuditOutcome::Refused);
    let refused: Vec<_> = refused
        .map(|event| {
            let action = event.action().as_str_name().to_owned();
            let subject = event.actor.clone().unwrap().subject;
            (action, subject, event.reason.clone(), event.count)
        })
        .collect();
    assert_eq!(refused.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(refused.len(), wanted.len(), "a refusal has two rows");
}
