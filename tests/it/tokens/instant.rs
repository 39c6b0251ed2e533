//! Tests the instant of a decision (R8). The clock is read when the decision is made, not when the
//! request's headers arrive, and the instant is never before an earlier change of the stack.

use std::time::Duration;

use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, after, at, issue_request,
    late::{LateQuestion, PendingCall, outcome},
    requests::{Issued, overlap_for, refused, revoke_request, rotate_request, set_expiry_request},
};

/// Issues and uses a token that expires in a second. Returns the token and its expiry in
/// microseconds.
async fn about_to_expire(server: &TestServer, name: &str) -> (Issued, i64) {
    let ends = server.clock.seconds() + 60;
    let token = server.token_until(name, at(ends)).await;
    assert_eq!(server.verdict(&token.secret).await, "OK");
    server.clock.advance(Duration::from_secs(59));
    (token, ends * 1_000_000)
}

async fn begin(server: &TestServer, asked: LateQuestion, token: &(Issued, i64)) -> PendingCall {
    let jwt = server.issuer.user("owner", server.clock.seconds());
    let channel = server.channel().await;
    PendingCall::begin(&channel, &jwt, (asked, &server.stack), (&token.0, token.1)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_after_the_expiry_is_too_late() {
    let server = TestServer::start().await;
    for asked in LateQuestion::ALL {
        let token = about_to_expire(&server, &format!("{asked:?}")).await;
        let late = begin(&server, asked, &token).await;
        server.clock.advance(Duration::from_secs(4));
        assert_eq!(server.verdict(&token.0.secret).await, "EXPIRED");
        let answered = late.send().await.unwrap();
        assert_eq!(outcome(&answered), asked.too_late(), "{asked:?}");
        assert_eq!(
            server.verdict(&token.0.secret).await,
            "EXPIRED",
            "{asked:?}"
        );
        assert_eq!(server.limit().await.0, 0, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_before_the_expiry_is_in_time() {
    for asked in LateQuestion::ALL {
        let server = TestServer::start().await;
        let token = about_to_expire(&server, "control").await;
        let late = begin(&server, asked, &token).await;
        server.clock.advance(Duration::from_millis(500));
        assert_eq!(server.verdict(&token.0.secret).await, "OK");
        let answered = late.send().await.unwrap();
        assert_eq!(outcome(&answered), "OK", "{asked:?}");
        server.clock.advance(Duration::from_millis(500));
        let expected = match asked {
            LateQuestion::SetExpiry => "OK",
            // The overlap ends at the latest when the token expires.
            LateQuestion::Rotate => "SUPERSEDED",
            _ => "EXPIRED",
        };
        assert_eq!(server.verdict(&token.0.secret).await, expected, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_store_over_the_expiry_is_too_late() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    for asked in LateQuestion::ALL {
        for over in [false, true] {
            let token = about_to_expire(&server, &format!("{asked:?} {over}")).await;
            outside.run("BEGIN IMMEDIATE").await;
            let waiting = begin(&server, asked, &token).await.send();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if over {
                server.clock.advance(Duration::from_secs(4));
                assert_eq!(server.verdict(&token.0.secret).await, "EXPIRED");
            }
            outside.run("ROLLBACK").await;
            let answered = waiting.await.unwrap();
            let expected = if over { asked.too_late() } else { "OK" };
            assert_eq!(outcome(&answered), expected, "{asked:?}");
            server.clock.advance(Duration::from_secs(60));
            if over {
                assert_eq!(server.verdict(&token.0.secret).await, "EXPIRED");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_change_writes_down_is_when_it_was_decided() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    let token = server.token("deploy").await;
    outside.run("BEGIN IMMEDIATE").await;
    let (stack, uid) = (server.stack.clone(), token.uid.clone());
    let mut owner = server.owner().await;
    let revoke = revoke_request(&stack, &uid, "leaked");
    let waiting = tokio::spawn(async move { owner.tokens.revoke(revoke).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.clock.advance(Duration::from_secs(4));
    outside.run("ROLLBACK").await;
    let revoked = waiting.await.unwrap().unwrap().into_inner().token.unwrap();
    let now = server.clock.seconds();
    assert_eq!(revoked.revoked_at.unwrap().seconds, now);
    let event = server.audit().await.remove(0);
    assert_eq!(event.occurred_at.unwrap().seconds, now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_and_an_overlap_and_a_relative_expiry_count_from_the_decision() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    let (ended, rotated) = (server.token("ended").await, server.token("rotated").await);
    let redated = server.token("redated").await;
    outside.run("BEGIN IMMEDIATE").await;
    let stack = server.stack.clone();
    let issue = v1::IssueRequest {
        expiry: Some(after(60, 0)),
        ..issue_request(&stack, "issued")
    };
    let redate = set_expiry_request(&stack, &redated.uid, after(90, 0));
    let (mut issuer, mut redater) = (server.owner().await, server.owner().await);
    let issue = tokio::spawn(async move { issuer.tokens.issue(issue).await });
    let redate = tokio::spawn(async move { redater.tokens.set_expiry(redate).await });
    let expire = set_expiry_request(&stack, &ended.uid, crate::support::now());
    let rotate = rotate_request(&stack, &rotated.uid, overlap_for(10));
    let (mut owner, mut other) = (server.owner().await, server.owner().await);
    let expire = tokio::spawn(async move { owner.tokens.set_expiry(expire).await });
    let rotate = tokio::spawn(async move { other.tokens.rotate(rotate).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.clock.advance(Duration::from_secs(4));
    outside.run("ROLLBACK").await;
    let now = server.clock.seconds();
    let ended: v1::Token = expire.await.unwrap().unwrap().into_inner().token.unwrap();
    assert_eq!(ended.expires_at.unwrap().seconds, now);
    assert_eq!(ended.state(), v1::TokenState::Expired);
    let rotated = rotate.await.unwrap().unwrap().into_inner();
    assert_eq!(rotated.overlap_ends_at.unwrap().seconds, now + 10);
    let issued = issue.await.unwrap().unwrap().into_inner().token.unwrap();
    assert_eq!(issued.expires_at.unwrap().seconds, now + 60);
    let redated = redate.await.unwrap().unwrap().into_inner().token.unwrap();
    assert_eq!(redated.expires_at.unwrap().seconds, now + 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instants_never_go_back_within_a_stack() {
    let server = TestServer::start().await;
    let (first, second) = (server.token("first").await, server.token("second").await);
    server.clock.advance(Duration::from_secs(10));
    server.revoke(&first.uid).await;
    let last = server.see(&first.uid).await.revoked_at.unwrap();
    // The clock is set back by less than the permitted skew, as if another host had made the
    // earlier change. The instant of the earlier change is used again.
    server.clock.set_back(Duration::from_millis(1_900));
    server.revoke(&second.uid).await;
    assert_eq!(server.see(&second.uid).await.revoked_at.unwrap(), last);
    // The clock is set back by more than the permitted skew. One of the two clocks is wrong, and
    // the server cannot know which one.
    server.clock.set_back(Duration::from_millis(200));
    let before = server.audit().await;
    let issue = crate::support::issue_request(&server.stack, "third");
    let status = server.owner().await.tokens.issue(issue).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (tonic::Code::Unavailable, "CLOCK_SKEW".into())
    );
    let details = crate::support::clients::details(&status);
    assert!(details.retry_info().is_some());
    assert_eq!(server.audit().await, before);
    // Only the last change of the same stack counts, so another stack can be changed.
    server.register("Another").await;
    // Once the clock has caught up, changes succeed again.
    server.clock.advance(Duration::from_millis(200));
    server.token("third").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_permitted_skew_is_that_of_the_setting() {
    let skew = Duration::from_secs(30);
    let server = TestServer::start_with(|tuning| tuning.max_clock_skew = skew).await;
    // The clock is asked to permit this skew. The `false` means that SQLite has no second clock to
    // compare with.
    assert_eq!(server.clock.permitted(), Some((skew, false)));
    let token = server.token("deploy").await;
    server.clock.set_back(Duration::from_secs(29));
    server.revoke(&token.uid).await;
    server.clock.set_back(Duration::from_secs(2));
    let issue = crate::support::issue_request(&server.stack, "another");
    let status = server.owner().await.tokens.issue(issue).await.unwrap_err();
    assert_eq!(refused(&status).1, "CLOCK_SKEW");
}
