//! Tests that all refused exchanges return the same bytes, whatever the cause, and that the audit
//! records the cause of each.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stacktoken::grpc::pb::{
    audit::v1::{AuditEvent, AuditOutcome},
    v1,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    TestServer,
    federated::{CI, exchange_request, job, pod},
};

/// Returns everything in a status except the id of its call.
fn bytes(status: &Status) -> String {
    let mut details = status.get_error_details();
    details.set_request_info("", "");
    format!("{:?} {} {details:?}", status.code(), status.message())
}

/// Returns the refused exchanges in the audit of the stack, once there are `count` rows.
async fn refusals(server: &TestServer, count: usize) -> Vec<AuditEvent> {
    for _ in 0..100 {
        let events = server.audit().await.into_iter();
        let refused: Vec<_> = events
            .filter(|event| event.method.ends_with("/Exchange"))
            .filter(|event| event.outcome() == AuditOutcome::Refused)
            .collect();
        if refused.len() >= count {
            return refused;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("fewer than {count} rows");
}

fn cause(event: &AuditEvent) -> String {
    assert_eq!(event.error_reason, "EXCHANGE_REFUSED");
    event.details["obstacle"].clone()
}

/// Returns claims that the rules of the token do not accept.
fn mismatches() -> Vec<Value> {
    vec![
        json!({ "repository_id": "11" }),
        json!({ "repository_id": "1 " }),
        json!({ "repository_id": " 1" }),
        json!({ "repository_id": "01" }),
        json!({ "repository_id": "１" }),
        json!({ "repository_id": "" }),
        json!({ "repository_id": null }),
        json!({ "repository_id": ["1"] }),
        json!({ "repository_id": { "1": "1" } }),
        json!({ "repository_id": 1.0 }),
        json!({ "repository_id": true }),
        json!({ "repository_owner_id": "1" }),
        json!({ "repository_owner_id": null }),
        json!({ "repository_owner_id": "2\u{0}" }),
        json!({ "environment": "Production" }),
        json!({ "environment": "PRODUCTION" }),
        json!({ "environment": "production/" }),
        json!({ "environment": "production-evil" }),
        json!({ "environment": "pr\u{43e}duction" }),
        json!({ "environment": "production\u{200b}" }),
        json!({ "environment": null }),
        json!({ "environment": ["production"] }),
        json!({ "environment": "*" }),
        json!({ "Environment": "production", "environment": null }),
        json!({ "repository": "octo/app", "repository_id": "2", "repository_owner_id": "2" }),
        json!({ "sub": "repo:octo/app-evil:environment:production", "repository_id": "3" }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_the_same_to_the_caller_and_has_its_cause_in_the_audit() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let mut expected = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut refuse = async |claims: Value, (stack, token): (&str, &str), cause: &str| {
        let mut workload = server.workload(&claims).await;
        let request = exchange_request(stack, token);
        let status = workload.exchange.exchange(request).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{claims} {status:?}");
        seen.insert(bytes(&status));
        if !cause.is_empty() {
            expected.insert(cause.to_owned());
        }
    };
    let stack = server.stack.as_str();
    for claims in mismatches() {
        refuse(job(now, claims.clone()), (stack, &uid), "RULE_NOT_MATCHED").await;
        refuse(job(now, claims), (stack, ""), "RULE_NOT_MATCHED").await;
    }
    for event in [
        "pull_request",
        "pull_request_target",
        "workflow_run",
        "issue_comment",
        "issues",
        "fork",
        "gollum",
        "check_run",
        "status",
    ] {
        let claims = job(now, json!({ "event_name": event }));
        refuse(claims, (stack, &uid), "EVENT_REFUSED").await;
    }
    for jti in [json!(null), json!(""), json!(7), json!(["x"])] {
        let claims = job(now, json!({ "jti": jti }));
        refuse(claims, (stack, &uid), "JWT_INVALID").await;
    }
    refuse(pod(now), (stack, &uid), "OTHER_ISSUER").await;
    // These exchanges write no audit row: the stack or the token does not exist, or the token is not
    // federated.
    let other = server.register("Another stack").await;
    let nobody = "01890000-0000-7000-8000-000000000001";
    let ordinary = server.issue("deploy").await.token.unwrap().token_uid;
    for (stack, token) in [
        ("blt00c0ffee00c0ffee", ""),
        (&other, ""),
        (&other, &uid),
        (stack, nobody),
        (stack, &ordinary),
    ] {
        refuse(job(now, json!({})), (stack, token), "").await;
    }
    // The assertion was used before.
    let used = job(now, json!({}));
    let session = server.exchange(&used, &uid).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "");
    refuse(used, (stack, &uid), "JWT_REPLAYED").await;
    // Two tokens match, and the request does not say which one it means.
    let second = server.federated("second").await;
    refuse(job(now, json!({})), (stack, ""), "AMBIGUOUS").await;
    let revoke = v1::RevokeRequest {
        stack_api_key: stack.into(),
        token_uid: second.clone(),
        ..Default::default()
    };
    server.owner().await.tokens.revoke(revoke).await.unwrap();
    refuse(job(now, json!({})), (stack, &second), "TOKEN_REVOKED").await;

    assert_eq!(seen.len(), 1, "{seen:#?}");
    let events = refusals(&server, expected.len()).await;
    let found: BTreeSet<_> = events.iter().map(cause).collect();
    assert_eq!(found, expected);
    assert_eq!(events.len(), expected.len(), "one row for each cause");
    for event in &events {
        let actor = event.actor.clone().unwrap();
        assert_eq!(
            (actor.kind(), actor.subject.as_str()),
            (v1::CallerKind::Workload, "")
        );
        assert_eq!(event.stack_api_key, server.stack);
        if actor.issuer == CI && cause(event) == "RULE_NOT_MATCHED" {
            assert_eq!(event.count as usize, 2 * mismatches().len());
        }
    }
    assert_eq!(server.inactive(&session.secret).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assertions_that_do_not_verify_are_no_credential() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    for other in [
        json!({ "aud": "stacktoken" }),
        json!({ "aud": "stacktoken-pods" }),
        json!({ "aud": ["stacktoken-ci", "stacktoken-pods"] }),
        json!({ "aud": ["stacktoken-ci", "stacktoken"] }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "iss": "https://ci.test/" }),
        json!({ "iss": "https://CI.test" }),
        json!({ "iss": "https://pods.test" }),
        json!({ "iat": null }),
        json!({ "iat": now + 60 }),
        json!({ "exp": null }),
        json!({ "exp": now - 60 }),
        json!({ "exp": now + 24 * 3600 + 60 }),
        json!({ "nbf": now + 60 }),
        json!({ "sub": "" }),
        json!({ "sub": null }),
    ] {
        let answered = server.exchange(&job(now, other.clone()), &uid).await;
        let status = answered.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_can_do_nothing_else_and_nobody_else_can_exchange() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let now = server.clock.seconds();
    let mut workload = server.workload(&job(now, json!({}))).await;
    let listed = workload
        .actions
        .list_actions(v1::ListActionsRequest {})
        .await;
    assert_eq!(listed.unwrap_err().code(), Code::PermissionDenied);
    let request = exchange_request(&server.stack, "");
    for mut caller in [
        server.owner().await,
        server.operator().await,
        server.service().await,
    ] {
        let status = caller.exchange.exchange(request.clone()).await.unwrap_err();
        assert_eq!(crate::support::reason(&status), "ROLE_REQUIRED");
    }
    workload.exchange.exchange(request).await.unwrap();
}

/// A public issuer has 300 identities, none of which matches a rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_write_one_row_a_minute_and_stack() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    for number in 0..300 {
        let claims = json!({
            "sub": format!("repo:stranger{number}/x:ref:refs/heads/main"),
            "repository_id": format!("{}", number + 100),
            "repository_owner_id": format!("{}", number + 100),
        });
        let answered = server.exchange(&job(now, claims), &uid).await;
        assert_eq!(answered.unwrap_err().code(), Code::PermissionDenied);
    }
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let events = refusals(&server, 1).await;
    let counts: Vec<_> = events.iter().map(|event| event.count).collect();
    assert_eq!(counts, [300]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_have_a_rate_and_not_their_identities() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 8.try_into().unwrap();
    })
    .await;
    let now = server.clock.seconds();
    let exchange = async |owner: &str, run: u32| {
        let claims = json!({ "repository_owner_id": owner, "sub": format!("repo:x:{run}") });
        let answered = server.exchange(&job(now, claims), "").await;
        answered.unwrap_err().code()
    };
    let mut codes = Vec::new();
    for run in 0..12 {
        codes.push(exchange("77", run).await);
    }
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    assert_eq!(
        exchange("78", 0).await,
        Code::PermissionDenied,
        "another account"
    );
}
