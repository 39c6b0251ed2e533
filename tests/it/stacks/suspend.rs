use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::SuspendRequest,
    v1::{Decision, GetRequest, ListRequest, Reason, RevokeRequest, StackState},
};

use super::{
    DONE, NOT_FOUND, SUSPENDED, UNKNOWN, details, ended, latest, remove, rename, set_expiry, stack,
    suspend,
};
use crate::support::{TestServer, at, clients::fields, issue_request, methods, never, now};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_of_a_suspended_stack_is_active() {
    let server = TestServer::start().await;
    let issued = server.issue("first").await;
    let mut operator = server.operator().await;
    let answer = operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    let answer = answer.into_inner();
    let suspended = answer.stack.unwrap();
    assert_eq!(suspended.state(), StackState::Suspended);
    assert_eq!(
        suspended.suspended_at.unwrap().seconds,
        server.clock.seconds()
    );
    assert!(!answer.revision.is_empty());
    let verdict = server.introspect(&issued.secret, &["entry.read"]).await;
    assert!(!verdict.active);
    assert_eq!(verdict.reason(), Reason::StackSuspended);
    assert_eq!(verdict.decision(), Decision::Deny);
    assert!(verdict.token.is_none() && verdict.stack.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspending_twice_is_fine_and_keeps_the_first_instant() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    let first = stack(&server).await;
    server.clock.advance(Duration::from_secs(60));
    ended(&operator.stacks.suspend(suspend(&server.stack)).await, DONE);
    assert_eq!(stack(&server).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_suspended_looking_revoking_and_earlier_expiries_work() {
    let server = TestServer::start().await;
    let key = server.stack.clone();
    let uid = server.issue("first").await.token.unwrap().token_uid;
    let mut operator = server.operator().await;
    operator.stacks.suspend(suspend(&key)).await.unwrap();
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
    for hour in [3, 2, 1] {
        let sooner = at(server.clock.seconds() + hour * 3600);
        let mut who = match hour {
            2 => server.operator().await,
            _ => server.owner().await,
        };
        let redated = who.tokens.set_expiry(set_expiry(&key, &uid, sooner)).await;
        ended(&redated, DONE);
    }
    let mut owner = server.owner().await;
    ended(&owner.tokens.get(get).await, DONE);
    ended(&owner.tokens.list(list).await, DONE);
    ended(
        &owner
            .stacks
            .get(super::GetRequest {
                stack_api_key: key.clone(),
            })
            .await,
        DONE,
    );
    ended(
        &owner.tokens.set_expiry(set_expiry(&key, &uid, now())).await,
        DONE,
    );
    ended(&owner.tokens.revoke(revoke).await, DONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_suspended_nothing_is_issued_updated_or_given_more_time() {
    let server = TestServer::start().await;
    let key = server.stack.clone();
    let uid = server.issue("first").await.token.unwrap().token_uid;
    let soon = server.clock.seconds() + 3600;
    let mut owner = server.owner().await;
    owner
        .tokens
        .set_expiry(set_expiry(&key, &uid, at(soon)))
        .await
        .unwrap();
    let mut operator = server.operator().await;
    operator.stacks.suspend(suspend(&key)).await.unwrap();
    let before = server.audit().await;
    ended(
        &owner.tokens.issue(issue_request(&key, "second")).await,
        SUSPENDED,
    );
    ended(
        &owner.tokens.update(rename(&key, &uid, "renamed")).await,
        SUSPENDED,
    );
    for later in [at(soon + 1), never()] {
        let redated = owner.tokens.set_expiry(set_expiry(&key, &uid, later)).await;
        ended(&redated, SUSPENDED);
    }
    let done = server.audit().await;
    let done = done.iter().filter(|event| event.error_reason.is_empty());
    assert_eq!(done.count(), before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_not_there_is_not_suspended() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    for key in [server.stack.as_str(), UNKNOWN] {
        ended(&operator.stacks.suspend(suspend(key)).await, NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_suspension_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = SuspendRequest {
        stack_api_key: String::new(),
        reason: "x".repeat(501),
        validate_only: false,
    };
    let status = operator.stacks.suspend(request).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "reason"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_is_in_the_audit_with_its_reason() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    let event = latest(&server, methods::SUSPEND).await;
    assert_eq!(details(&event), [("reason", "unpaid")]);
}
