//! Tests clients that give up. If their call was completed anyway, every later answer reflects it.

use std::time::Duration;

use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer,
    database::eventually,
    introspect_request, issue_request,
    requests::{UNTIL_FIRST_USE, revoke_request, rotate_request},
};

/// Returns how many calls are given up in each test.
pub fn times() -> u64 {
    let count = std::env::var("STACKTOKEN_TEST_CANCELLATIONS");
    count.map_or(100, |count| count.parse().unwrap())
}

/// Returns a timeout for call `n`. The timeouts range from 0 to slightly more than a change takes.
fn patience(n: u64) -> Duration {
    Duration::from_micros(n * 7919 % 6000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_tokens_are_left_as_audit_rows_and_one_live_secret_each() {
    let server = TestServer::start().await;
    server.set_limit(1000).await;
    let outside = server.outside().await;
    let mut owner = server.owner().await;
    let mut cut = 0;
    for n in 0..times().min(900) {
        let request = v1::IssueRequest {
            request_id: format!("request-{n}"),
            ..issue_request(&server.stack, &format!("token {n}"))
        };
        let call = owner.tokens.issue(request.clone());
        match tokio::time::timeout(patience(n), call).await {
            Ok(issued) => drop(issued.unwrap()),
            Err(_) => cut += 1,
        }
        if n % 3 == 0 {
            owner.tokens.issue(request).await.unwrap();
        }
    }
    // SQLite has one writer, so once this change is complete, all earlier ones are too.
    server.token("the last").await;
    let tokens = outside.number("SELECT COUNT(*) FROM tokens").await;
    let rows = "SELECT COUNT(*) FROM audit_events WHERE action = 'token_issue' \
                AND details NOT LIKE '%again%'";
    assert_eq!(outside.number(rows).await, tokens, "{cut} gave up");
    let live = "SELECT COUNT(*) FROM token_secrets WHERE superseded_at IS NULL";
    assert_eq!(outside.number(live).await, tokens);
    assert!(cut > 0, "no client gave up");
}

/// Waits until the verdict is `expected`, because the cache may not reflect a completed change yet.
async fn becomes(server: &TestServer, secret: &str, expected: &str) {
    eventually(expected, async || {
        (server.verdict(secret).await == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_revoke_always_evicts_the_token() {
    let server = TestServer::start().await;
    let (mut owner, service) = (server.owner().await, server.service().await);
    let (mut cut, mut made) = (0, 0);
    for n in 0..times() {
        let token = server.token(&format!("token {n}")).await;
        assert_eq!(server.verdict(&token.secret).await, "OK");
        // Introspections run at the same time, so that they fill the cache during the revoke.
        let (mut asking, stack, secret) =
            (service.clone(), server.stack.clone(), token.secret.clone());
        let asking = tokio::spawn(async move {
            for _ in 0..20 {
                let question = introspect_request(&stack, &secret, &[]);
                asking.introspection.introspect(question).await.unwrap();
            }
        });
        let call = owner
            .tokens
            .revoke(revoke_request(&server.stack, &token.uid, ""));
        cut += i32::from(tokio::time::timeout(patience(n), call).await.is_err());
        asking.await.unwrap();
        // The revoke may still be running. Once it is recorded, the verdict must reflect it.
        let told = server.verdict(&token.secret).await;
        let revoked = server.see(&token.uid).await.state() == v1::TokenState::Revoked;
        if revoked {
            becomes(&server, &token.secret, "REVOKED").await;
        } else {
            assert_eq!(told, "OK", "after {:?}", patience(n));
        }
        made += i32::from(revoked);
        server.revoke(&token.uid).await;
    }
    assert!(
        cut > 0 && made > 0,
        "{cut} gave up, {made} revokes were made"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_use_that_was_recorded_ends_the_former_secret_here_too() {
    let server = TestServer::start().await;
    let (mut service, outside) = (server.service().await, server.outside().await);
    let mut recorded = 0;
    for n in 0..times() {
        let token = server.token(&format!("token {n}")).await;
        let request = rotate_request(&server.stack, &token.uid, UNTIL_FIRST_USE);
        let rotated = server.owner().await.tokens.rotate(request).await.unwrap();
        assert_eq!(server.verdict(&token.secret).await, "OK");
        let question = introspect_request(&server.stack, &rotated.into_inner().secret, &[]);
        let call = service.introspection.introspect(question);
        drop(tokio::time::timeout(patience(n), call).await);
        let told = server.verdict(&token.secret).await;
        let rows = format!(
            "SELECT COUNT(*) FROM audit_events \
             WHERE action = 'token_first_use' AND token_uid = '{}'",
            token.uid
        );
        let ended = outside.number(&rows).await;
        if ended > 0 {
            becomes(&server, &token.secret, "SUPERSEDED").await;
        } else {
            assert_eq!(told, "OK", "after {:?}", patience(n));
        }
        recorded += ended;
        server.revoke(&token.uid).await;
    }
    assert!(recorded > 0, "no first use was recorded");
}
