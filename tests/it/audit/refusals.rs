//! Tests the audit rows of refused calls.

use std::{collections::BTreeMap, time::Duration};

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    audit::v1::{self as audit, AuditEvent, AuditOutcome},
};

use super::{details, with_id};
use crate::support::{
    Client, TestServer,
    clock::START,
    database::eventually,
    introspect_request, issue_request,
    requests::{get_request, list_request, outcome, rename_request},
};

/// Returns the counts of all recorded refusals by method, reason and subject. There is one count
/// per minute, because each minute has its own row.
async fn refusals(client: &mut Client) -> BTreeMap<(String, String, String), Vec<u32>> {
    let request = audit::ListRequest {
        page_size: 100,
        ..Default::default()
    };
    let events = client
        .audit
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let mut seen = BTreeMap::<_, Vec<u32>>::new();
    for event in events {
        if event.outcome() == AuditOutcome::Refused {
            let (_, method) = event.method.rsplit_once('.').unwrap();
            let method = method.to_owned();
            let subject = event.actor.unwrap().subject;
            seen.entry((method, event.error_reason, subject))
                .or_default()
                .push(event.count);
        }
    }
    seen
}

fn key(method: &str, reason: &str, subject: &str) -> (String, String, String) {
    (method.into(), reason.into(), subject.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_one_row_per_caller_rpc_reason_and_minute_with_a_count() {
    let server = TestServer::start().await;
    let stack = &server.stack;
    let (mut developer, mut stranger) = (server.developer().await, server.stranger().await);
    let mut operator = server.operator().await;
    let first = with_id(issue_request(stack, "x"), "the-first");
    assert!(developer.tokens.issue(first).await.is_err());
    for _ in 0..4 {
        assert!(
            developer
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
    }
    for _ in 0..2 {
        assert!(
            stranger
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
        assert!(developer.tokens.list(list_request(stack)).await.is_err());
    }
    let missing = get_request(stack, "01890000-0000-7000-8000-000000000000");
    assert!(server.owner().await.tokens.get(missing).await.is_err());
    let expected = BTreeMap::from([
        (
            key("TokenService/Issue", "ROLE_REQUIRED", "developer"),
            vec![5],
        ),
        (
            key("TokenService/Issue", "STACK_NOT_FOUND", "stranger"),
            vec![2],
        ),
        (
            key("TokenService/List", "ROLE_REQUIRED", "developer"),
            vec![2],
        ),
        (key("TokenService/Get", "TOKEN_NOT_FOUND", "owner"), vec![1]),
    ]);
    eventually("the refusals are recorded", async || {
        (refusals(&mut operator).await == expected).then_some(())
    })
    .await;
    let events = server.audit().await;
    let by_developer = |event: &&AuditEvent| event.count == 5;
    let event = events.iter().find(by_developer).unwrap();
    assert_eq!(event.call_id, "the-first");
    assert_eq!(event.occurred_at.unwrap().seconds, START);
    assert_eq!(event.details, details(&[]));
    server.clock.advance(Duration::from_secs(60));
    assert!(
        developer
            .tokens
            .issue(issue_request(stack, "x"))
            .await
            .is_err()
    );
    let both = vec![1, 5];
    eventually("the next minute has a row of its own", async || {
        let seen = refusals(&mut operator).await;
        let rows = seen.get(&key("TokenService/Issue", "ROLE_REQUIRED", "developer"));
        (rows == Some(&both)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_by_a_rule_or_a_rate_and_on_stacks_and_the_audit_are_recorded_too() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 5.try_into().unwrap();
    })
    .await;
    let stack = &server.stack;
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let dead = server.token("dead").await;
    server.revoke(&dead.uid).await;
    let renamed = rename_request(stack, &dead.uid, "reborn");
    assert_eq!(
        outcome(&owner.tokens.update(renamed.clone()).await),
        "FailedPrecondition TOKEN_REVOKED"
    );
    let mut told = String::new();
    for _ in 0..40 {
        told = outcome(&owner.tokens.update(renamed.clone()).await);
        if told.ends_with("RATE_LIMITED") {
            break;
        }
    }
    assert_eq!(told, "ResourceExhausted RATE_LIMITED");
    let mut mere = server.service_without_role().await;
    assert!(mere.tokens.list(list_request(stack)).await.is_err());
    let of_stacks = admin::ListRequest::default();
    assert!(owner.stacks.list(of_stacks).await.is_err());
    let mut developer = server.developer().await;
    let of_audit = audit::ListRequest {
        stack_api_key: stack.clone(),
        ..Default::default()
    };
    assert!(developer.audit.list(of_audit).await.is_err());
    let expected = [
        key("TokenService/Update", "TOKEN_REVOKED", "owner"),
        key("TokenService/Update", "RATE_LIMITED", "owner"),
        key("TokenService/List", "ROLE_REQUIRED", "mailer"),
        key("StackService/List", "ROLE_REQUIRED", "owner"),
        key("AuditService/List", "ROLE_REQUIRED", "developer"),
    ];
    eventually("all of them are recorded", async || {
        let seen = refusals(&mut operator).await;
        expected
            .iter()
            .all(|key| seen.contains_key(key))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_credential_and_verdicts_leave_no_rows() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognized_per_second = 2.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let stack = &server.stack;
    let mut anonymous = server.anonymous().await;
    let mut forged = server.with_authorization("Bearer e30.e30.e30").await;
    let mut posing = server
        .with_authorization(format!("Bearer {}", token.secret))
        .await;
    let (mut service, mut mere) = (server.service().await, server.service_without_role().await);
    let mut operator = server.operator().await;
    let before = server.audit().await.len();
    for client in [&mut anonymous, &mut forged, &mut posing] {
        assert!(client.tokens.list(list_request(stack)).await.is_err());
        assert!(
            client
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
        let question = introspect_request(stack, &token.secret, &[]);
        assert!(client.introspection.introspect(question).await.is_err());
    }
    for secret in [
        token.secret.as_str(),
        "junk",
        "junk",
        "junk",
        "junk",
        "junk",
    ] {
        let question = introspect_request(stack, secret, &["token.create"]);
        let _ = service.introspection.introspect(question.clone()).await;
        assert!(mere.introspection.introspect(question).await.is_err());
    }
    // Refusals are written in order. Once this one is recorded, no earlier refusal can follow.
    let mut stranger = server.stranger().await;
    assert!(stranger.tokens.list(list_request(stack)).await.is_err());
    let only = BTreeMap::from([(
        key("TokenService/List", "STACK_NOT_FOUND", "stranger"),
        vec![1],
    )]);
    eventually("the last refusal is recorded", async || {
        let seen = refusals(&mut operator).await;
        (!seen.is_empty()).then_some(seen)
    })
    .await;
    assert_eq!(refusals(&mut operator).await, only);
    assert_eq!(server.audit().await.len(), before + 1);
}
