use std::time::Duration;

use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, at,
    clients::fields,
    clock::START,
    requests::{outcome, revoke_request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_token_is_inactive_in_the_very_next_verdict() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let request = revoke_request(&server.stack, &token.uid, "leaked");
    let revoked = server.owner().await.tokens.revoke(request).await.unwrap();
    let revoked = revoked.into_inner();
    assert!(!revoked.revision.is_empty());
    assert_eq!(revoked.token.unwrap().state(), v1::TokenState::Revoked);
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_again_is_ok_and_changes_nothing() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let first = revoke_request(&server.stack, &token.uid, "leaked");
    let first = server.owner().await.tokens.revoke(first).await.unwrap();
    server.clock.advance(Duration::from_secs(60));
    let second = revoke_request(&server.stack, &token.uid, "another reason");
    let second = server.operator().await.tokens.revoke(second).await.unwrap();
    let (first, second) = (first.into_inner().token, second.into_inner().token);
    assert_eq!(first, second);
    let seen = server.see(&token.uid).await;
    assert_eq!(seen.revoked_at.unwrap().seconds, START);
    assert_eq!(seen.revoke_reason, "leaked");
    assert_eq!(seen.revoked_by.unwrap().subject, "owner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_can_be_revoked() {
    let server = TestServer::start().await;
    let token = server.token_until("short", at(START + 60)).await;
    server.clock.advance(Duration::from_secs(61));
    let request = revoke_request(&server.stack, &token.uid, "to be sure");
    let revoked = server.owner().await.tokens.revoke(request).await.unwrap();
    let revoked = revoked.into_inner().token.unwrap();
    assert_eq!(revoked.state(), v1::TokenState::Revoked);
    assert_eq!(revoked.revoked_at.unwrap().seconds, START + 61);
    assert_eq!(revoked.expires_at.unwrap().seconds, START + 60);
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_suspended_stack_can_be_revoked() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.suspend().await;
    assert_eq!(server.verdict(&token.secret).await, "STACK_SUSPENDED");
    server.revoke(&token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
    server.resume().await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_revokes_at_once_the_first_counts() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let owner = server.owner().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..16 {
        let mut owner = owner.clone();
        let request = revoke_request(&server.stack, &token.uid, &format!("reason {n}"));
        calls.spawn(async move { owner.tokens.revoke(request).await.unwrap().into_inner() });
    }
    let mut reasons: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(|answer| answer.token.unwrap().revoke_reason)
        .collect();
    reasons.dedup();
    assert_eq!(reasons, [server.see(&token.uid).await.revoke_reason]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let long = "x".repeat(501);
    let table: [(&str, &str, &str, &[&str]); 3] = [
        ("", "", &long, &["stack_api_key", "token_uid", "reason"]),
        (&server.stack, &token.uid, &long, &["reason"]),
        (&server.stack, &token.uid, "a bell \u{7}", &["reason"]),
    ];
    for (stack, uid, reason, expected) in table {
        let status = owner
            .tokens
            .revoke(revoke_request(stack, uid, reason))
            .await;
        assert_eq!(fields(&status.unwrap_err()), expected);
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let longest = revoke_request(&server.stack, &token.uid, &long[1..]);
    assert_eq!(outcome(&owner.tokens.revoke(longest).await), "OK");
}
