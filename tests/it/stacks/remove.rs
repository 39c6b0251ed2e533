use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::{RegisterRequest, RemoveRequest},
    v1::{Decision, GetRequest, ListRequest, Reason, RevokeRequest, StackState},
};
use tonic::Code;

use super::{
    DONE, NOT_FOUND, UNKNOWN, details, ended, latest, register, remove, rename, set_expiry, stack,
    suspend,
};
use crate::support::{TestServer, clients::fields, issue_request, methods, now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_removed_stack_answer_revoked() {
    let server = TestServer::start().await;
    let issued = server.issue("first").await;
    let mut operator = server.operator().await;
    let answer = operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let answer = answer.into_inner();
    let removed = answer.stack.unwrap();
    assert_eq!(removed.state(), StackState::Removed);
    assert_eq!(removed.removed_at.unwrap().seconds, server.clock.seconds());
    assert!(!answer.revision.is_empty());
    let verdict = server.introspect(&issued.secret, &["entry.read"]).await;
    assert!(!verdict.active);
    assert_eq!(verdict.reason(), Reason::Revoked);
    assert_eq!(verdict.decision(), Decision::Deny);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_stack_that_was_suspended_first_answer_revoked_too() {
    let server = TestServer::start().await;
    let issued = server.issue("first").await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let verdict = server.introspect(&issued.secret, &[]).await;
    assert_eq!(verdict.reason(), Reason::Revoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_has_no_live_tokens() {
    let server = TestServer::start().await;
    server.issue("first").await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    assert_eq!(stack(&server).await.limit.unwrap().used, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_removed_stack_is_never_registered_again() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    server.clock.advance(Duration::from_hours(24 * 365));
    let request = RegisterRequest {
        stack_api_key: server.stack.clone(),
        ..register("Again")
    };
    let mut operator = server.operator().await;
    let again = operator.stacks.register(request).await;
    ended(&again, (Code::AlreadyExists, "STACK_KEY_TAKEN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_twice_is_fine_and_keeps_the_first_instant() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let first = stack(&server).await;
    server.clock.advance(Duration::from_secs(60));
    ended(&operator.stacks.remove(remove(&server.stack)).await, DONE);
    assert_eq!(stack(&server).await, first);
    ended(&operator.stacks.remove(remove(UNKNOWN)).await, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_its_people_a_removed_stack_is_not_there() {
    let server = TestServer::start().await;
    let key = server.stack.clone();
    let uid = server.issue("first").await.token.unwrap().token_uid;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&key)).await.unwrap();
    let get = GetRequest {
        stack_api_key: key.clone(),
        token_uid: uid.clone(),
    };
    let list = ListRequest {
        stack_api_key: key.clone(),
        ..Default::default()
    };
    let revoke = RevokeRequest {
        stack_api_key: key.clone(),
        token_uid: uid.clone(),
        reason: String::new(),
        validate_only: false,
        etag: String::new(),
    };
    let mut owner = server.owner().await;
    ended(
        &owner.tokens.issue(issue_request(&key, "second")).await,
        NOT_FOUND,
    );
    ended(&owner.tokens.get(get).await, NOT_FOUND);
    ended(&owner.tokens.list(list).await, NOT_FOUND);
    ended(
        &owner.tokens.update(rename(&key, &uid, "renamed")).await,
        NOT_FOUND,
    );
    ended(
        &owner.tokens.set_expiry(set_expiry(&key, &uid, now())).await,
        NOT_FOUND,
    );
    ended(&owner.tokens.revoke(revoke).await, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_removal_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let secret = server.issue("first").await.secret;
    let request = RemoveRequest {
        stack_api_key: "blt".into(),
        reason: format!("leaked {secret}"),
        validate_only: false,
    };
    let status = operator.stacks.remove(request).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "reason"]);
    assert!(!format!("{status:?}").contains(&secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_in_the_audit_with_its_reason() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let event = latest(&server, methods::REMOVE).await;
    assert_eq!(details(&event), [("reason", "gone")]);
}
