use stacktoken::grpc::pb::{admin::v1::SetTokenLimitRequest, v1::RevokeRequest};
use tonic::Code;

use super::{DONE, NOT_FOUND, details, ended, latest, remove, stack, stack_in};
use crate::support::{TestServer, clients::fields, issue_request, methods};

const FULL: (Code, &str) = (Code::ResourceExhausted, "TOKEN_LIMIT_REACHED");

fn set_limit(key: &str, max_tokens: i32) -> SetTokenLimitRequest {
    SetTokenLimitRequest {
        stack_api_key: key.into(),
        max_tokens: Some(max_tokens),
        reason: "as agreed".into(),
        validate_only: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_limit_allows_exactly_that_many_tokens() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    for n in 0..10 {
        server.issue(&format!("token {n}")).await;
    }
    let mut issue = async |name| owner.tokens.issue(issue_request(&server.stack, name)).await;
    ended(&issue("one too many").await, FULL);
    let mut operator = server.operator().await;
    let request = set_limit(&server.stack, 11);
    let answer = operator.stacks.set_token_limit(request).await.unwrap();
    let answer = answer.into_inner();
    let limit = answer.stack.unwrap().limit.unwrap();
    assert_eq!((limit.used, limit.max), (10, 11));
    assert!(!answer.revision.is_empty());
    ended(&issue("the eleventh").await, DONE);
    ended(&issue("the twelfth").await, FULL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_live_count_nothing_dies_and_issue_waits_until_it_has_fallen() {
    let server = TestServer::start().await;
    let (first, second) = (server.issue("first").await, server.issue("second").await);
    let mut operator = server.operator().await;
    let request = set_limit(&server.stack, 1);
    operator.stacks.set_token_limit(request).await.unwrap();
    for issued in [&first, &second] {
        assert!(server.introspect(&issued.secret, &[]).await.active);
    }
    let mut owner = server.owner().await;
    for (issued, expected) in [(first, FULL), (second, DONE)] {
        let revoke = RevokeRequest {
            stack_api_key: server.stack.clone(),
            token_uid: issued.token.unwrap().token_uid,
            reason: String::new(),
            validate_only: false,
            etag: String::new(),
        };
        owner.tokens.revoke(revoke).await.unwrap();
        let third = issue_request(&server.stack, "third");
        ended(&owner.tokens.issue(third).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_0_to_1000() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for max in [0, 1000] {
        let request = set_limit(&server.stack, max);
        ended(&operator.stacks.set_token_limit(request).await, DONE);
        let kept = stack(&server).await.limit.unwrap().max;
        assert_eq!(i32::try_from(kept), Ok(max));
    }
    for max in [-1, 1001, i32::MAX, i32::MIN] {
        let request = set_limit(&server.stack, max);
        let status = operator.stacks.set_token_limit(request).await.unwrap_err();
        assert_eq!(fields(&status), ["max_tokens"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_with_a_limit_of_0_issues_nothing() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = set_limit(&server.stack, 0);
    operator.stacks.set_token_limit(request).await.unwrap();
    let mut owner = server.owner().await;
    let issued = owner.tokens.issue(issue_request(&server.stack, "a")).await;
    ended(&issued, FULL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_has_no_limit_to_set() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let request = set_limit(&server.stack, 20);
    ended(&operator.stacks.set_token_limit(request).await, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_limit_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    // Neither the limit nor the reason has a default.
    let empty = SetTokenLimitRequest::default();
    let status = operator.stacks.set_token_limit(empty).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "max_tokens", "reason"]);
    let wrong = SetTokenLimitRequest {
        stack_api_key: "blt".into(),
        max_tokens: Some(-1),
        reason: "x".repeat(501),
        validate_only: false,
    };
    let status = operator.stacks.set_token_limit(wrong).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "max_tokens", "reason"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_in_the_audit_with_the_one_before_and_why() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = set_limit(&server.stack, 20);
    operator.stacks.set_token_limit(request).await.unwrap();
    let event = latest(&server, methods::SET_TOKEN_LIMIT).await;
    let limits = [&event.before, &event.after].map(|state| stack_in(state.as_ref()).limit.unwrap());
    assert_eq!(limits.map(|limit| limit.max), [10, 20]);
    assert_eq!(details(&event), [("reason", "as agreed")]);
}
