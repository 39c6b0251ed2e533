//! Calls each RPC as every kind of caller. The request is valid, so it succeeds for a permitted
//! caller.

use std::{collections::BTreeSet, time::Duration};

use prost_reflect::DynamicMessage;
use stacktoken::{
    auth::policy,
    grpc::pb::audit::v1::{AuditEvent, AuditEventKind, AuditOutcome, ListRequest},
};
use tonic::Code;

use super::table::{Audience, Fixture, Row, TABLE, metadata_of};
use crate::support::{
    TestServer,
    raw::{TestCaller, call, methods, outcome, path_of},
};

const GRANTED: (Code, &str) = (Code::Ok, "");
const WRONG_ROLE: (Code, &str) = (Code::PermissionDenied, "ROLE_REQUIRED");
const NO_PART: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");

fn expected(whom: Audience, part: TestCaller) -> (Code, &'static str) {
    use TestCaller::{
        Admin, Introspector, Operator, Owner, ServiceWithoutRole, Stranger, Workload,
    };
    match (whom, part) {
        (Audience::Workloads, Workload) | (Audience::Holders, _) => GRANTED,
        (_, Workload) | (Audience::Workloads, _) => WRONG_ROLE,
        (Audience::Users, part) if ![Introspector, ServiceWithoutRole].contains(&part) => GRANTED,
        (Audience::Anyone, _)
        | (Audience::Introspectors, Introspector)
        | (Audience::OperatorsAndServices, Introspector | ServiceWithoutRole)
        | (
            Audience::Operators | Audience::OperatorsAndServices | Audience::GovernorsAndOperators,
            Operator,
        )
        | (Audience::Governors | Audience::GovernorsAndOperators, Owner | Admin) => GRANTED,
        (Audience::Governors | Audience::GovernorsAndOperators, Stranger) => NO_PART,
        _ => WRONG_ROLE,
    }
}

/// Returns the audit events of the call with this id.
async fn audited(server: &TestServer, call_id: &str) -> Vec<AuditEvent> {
    let request = ListRequest {
        page_size: 100,
        ..Default::default()
    };
    let mut operator = server.operator().await;
    let listed = operator.audit.list(request).await.unwrap().into_inner();
    let ours = listed
        .events
        .into_iter()
        .filter(|event| event.call_id == call_id);
    ours.collect()
}

/// Returns the method as the audit records it, which is the path without the leading slash. Returns
/// `None` if refusals of the RPC are not recorded.
fn audited_method(row: &Row) -> Option<String> {
    let rule = policy::rule(row.path).unwrap();
    rule.action.map(|_| row.path[1..].to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_is_granted_to_its_callers_and_to_no_other() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for row in TABLE {
        // A refused call changes nothing, so refused calls can share a fixture.
        let shared = Fixture::new(&server).await;
        for part in TestCaller::ALL {
            let wanted = expected(row.whom, part);
            let fixture = match wanted == GRANTED && row.changes {
                true => &Fixture::new(&server).await,
                false => &shared,
            };
            let request = (row.request)(fixture);
            let answered = call(&channel, row.path, metadata_of(&server, part), request).await;
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
        let fixture = Fixture::new(&server).await;
        let caller = metadata_of(&server, super::table::right_caller(row.whom));
        let answered = call(&channel, row.path, caller, (row.request)(&fixture)).await;
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
        // Makes the events of this call newer than all others, so that they are on the first page.
        server.clock.advance(Duration::from_secs(1));
        let fixture = Fixture::new(&server).await;
        // Separates the events of this call from those of the fixture's setup.
        server.clock.advance(std::time::Duration::from_secs(1));
        let call_id = format!("the-call-{at}");
        let part = super::table::right_caller(row.whom);
        let sent = metadata_of(&server, part).and("x-request-id", call_id.as_bytes());
        let answered = call(&channel, row.path, sent, (row.request)(&fixture)).await;
        answered.unwrap_or_else(|status| panic!("{}: {status:?}", row.path));
        let events = audited(&server, &call_id).await;
        // RevokeAll writes one row for each of the two tokens.
        let of_each = if row.path.ends_with("/RevokeAll") {
            2
        } else {
            1
        };
        let expected = of_each * usize::from(row.changes);
        assert_eq!(events.len(), expected, "{}", row.path);
        for event in events {
            assert_eq!(event.outcome(), AuditOutcome::Done, "{}", row.path);
            assert_eq!(event.method, row.path[1..]);
            assert_eq!(event.kind(), AuditEventKind::Call);
            let subject = match row.whom {
                Audience::Holders => "repo octo/app run 7",
                _ => part.subject(),
            };
            assert_eq!(event.actor.unwrap().subject, subject, "{}", row.path);
            assert_eq!(event.occurred_at.unwrap().seconds, server.clock.seconds());
            assert_eq!((event.count, event.error_reason.as_str()), (1, ""));
            let is_new = row.path.ends_with("/Register");
            assert_eq!(
                event.stack_api_key == fixture.stack,
                !is_new,
                "{}",
                row.path
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_known_caller_is_in_the_audit_once_with_a_count_and_changes_nothing() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let fixture = Fixture::new(&server).await;
    let before = server.audit().await.len();
    let mut wanted = BTreeSet::new();
    for row in TABLE {
        for part in TestCaller::ALL {
            let (code, reason) = expected(row.whom, part);
            if code == Code::Ok {
                continue;
            }
            for _ in 0..2 {
                let request = (row.request)(&fixture);
                let answered = call(&channel, row.path, metadata_of(&server, part), request).await;
                assert_eq!(answered.unwrap_err().code(), code);
            }
            // Refused introspection is counted in metrics, never in audit rows (R14).
            if let Some(method) = audited_method(row) {
                // All workloads of an issuer share their rows.
                let subject = match part {
                    TestCaller::Workload => "",
                    part => part.subject(),
                };
                wanted.insert((method, subject.to_owned(), reason.to_owned(), 2));
            }
        }
    }
    assert_eq!(
        server.audit().await.len(),
        before,
        "a refused call is recorded as done"
    );
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
            let subject = event.actor.clone().unwrap().subject;
            (
                event.method.clone(),
                subject,
                event.error_reason.clone(),
                event.count,
            )
        })
        .collect();
    assert_eq!(refused.iter().cloned().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(
        refused.len(),
        wanted.len(),
        "a refusal has more than one row"
    );
}
