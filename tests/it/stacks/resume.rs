use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::ResumeRequest,
    v1::{Reason, StackState},
};

use super::{
    DONE, NOT_FOUND, UNKNOWN, details, ended, latest, remove, rename, set_expiry, stack, suspend,
};
use crate::support::{TestServer, at, clients::fields, issue_request, methods, never};

fn resume(key: &str) -> ResumeRequest {
    ResumeRequest {
        stack_api_key: key.into(),
        reason: "paid".into(),
        validate_only: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_resumed_stack_work_again() {
    let server = TestServer::start().await;
    let key = server.stack.clone();
    let issued = server.issue("first").await;
    let mut operator = server.operator().await;
    operator.stacks.suspend(suspend(&key)).await.unwrap();
    let answer = operator.stacks.resume(resume(&key)).await.unwrap();
    let answer = answer.into_inner();
    let resumed = answer.stack.unwrap();
    assert_eq!(resumed.state(), StackState::Active);
    assert!(resumed.suspended_at.is_none());
    assert!(!answer.revision.is_empty());
    assert!(
        server
            .introspect(&issued.secret, &["entry.update"])
            .await
            .active
    );
    let uid = issued.token.unwrap().token_uid;
    let mut owner = server.owner().await;
    ended(
        &owner.tokens.issue(issue_request(&key, "second")).await,
        DONE,
    );
    ended(
        &owner.tokens.update(rename(&key, &uid, "renamed")).await,
        DONE,
    );
    ended(
        &owner
            .tokens
            .set_expiry(set_expiry(&key, &uid, never()))
            .await,
        DONE,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expired_under_suspension_stays_dead() {
    let server = TestServer::start().await;
    let issued = server.issue("brief").await;
    let uid = issued.token.unwrap().token_uid;
    let soon = set_expiry(&server.stack, &uid, at(server.clock.seconds() + 60));
    server.owner().await.tokens.set_expiry(soon).await.unwrap();
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    server.clock.advance(Duration::from_secs(60));
    // The reason why a token is dead takes precedence over STACK_SUSPENDED, because it is final.
    let reason = async || server.introspect(&issued.secret, &[]).await.reason();
    assert_eq!(reason().await, Reason::Expired);
    operator.stacks.resume(resume(&server.stack)).await.unwrap();
    assert_eq!(reason().await, Reason::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_twice_or_what_was_never_suspended_is_fine() {
    let server = TestServer::start().await;
    let before = stack(&server).await;
    let mut operator = server.operator().await;
    ended(&operator.stacks.resume(resume(&server.stack)).await, DONE);
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    for _ in 0..2 {
        ended(&operator.stacks.resume(resume(&server.stack)).await, DONE);
    }
    assert_eq!(stack(&server).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_is_not_resumed() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    for key in [server.stack.as_str(), UNKNOWN] {
        ended(&operator.stacks.resume(resume(key)).await, NOT_FOUND);
    }
    assert_eq!(stack(&server).await.state(), StackState::Removed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_resumption_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = ResumeRequest {
        stack_api_key: "blt".into(),
        reason: "a\u{0}b".into(),
        validate_only: false,
    };
    let status = operator.stacks.resume(request).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "reason"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumption_is_in_the_audit_with_its_reason() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.resume(resume(&server.stack)).await.unwrap();
    let event = latest(&server, methods::RESUME).await;
    assert_eq!(details(&event), [("reason", "paid")]);
}
