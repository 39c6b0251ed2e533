//! Tests that a dead token stays dead (R8): neither an RPC nor a clock makes it live again.

use std::{sync::Arc, time::Duration};

use stacktoken::grpc::pb::v1;

use crate::support::{
    ManualClock, TestServer, at,
    clock::START,
    issue_request, never, now, on_date, permissions,
    requests::{
        Issued, outcome, permit_request, rename_request, revoke_request, set_expiry_request,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Tries everything that might make a token live again. Returns the outcomes.
async fn attempts(server: &TestServer, uid: &str) -> Vec<String> {
    let mut tokens = server.owner().await.tokens;
    let stack = &server.stack;
    let mut outcomes = Vec::new();
    for expiry in [never(), at(START + 9_999_999), on_date("2099-01-01"), now()] {
        let request = set_expiry_request(stack, uid, expiry);
        outcomes.push(outcome(&tokens.set_expiry(request).await));
    }
    let renamed = rename_request(stack, uid, "reborn");
    outcomes.push(outcome(&tokens.update(renamed).await));
    let widened = permit_request(stack, uid, permissions(v1::Access::ReadWrite));
    outcomes.push(outcome(&tokens.update(widened).await));
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_token_is_never_changed_again() {
    let server = TestServer::start().await;
    let token = server.token("leaked").await;
    server.revoke(&token.uid).await;
    let before = server.see(&token.uid).await;
    let outcomes = attempts(&server, &token.uid).await;
    assert_eq!(outcomes, ["FailedPrecondition TOKEN_REVOKED"; 6]);
    assert_eq!(server.see(&token.uid).await, before);
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_token_is_never_changed_again() {
    let server = TestServer::start().await;
    let token = server.token_until("short", at(START + 60)).await;
    server.clock.advance(MINUTE);
    let before = server.see(&token.uid).await;
    let outcomes = attempts(&server, &token.uid).await;
    assert_eq!(outcomes, ["FailedPrecondition TOKEN_EXPIRED"; 6]);
    assert_eq!(server.see(&token.uid).await, before);
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_after_it_expired_answers_revoked_for_good() {
    let server = TestServer::start().await;
    let token = server.token_until("short", at(START + 60)).await;
    server.clock.advance(MINUTE);
    server.revoke(&token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
    server.clock.set_back(HOUR);
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

/// Returns a token whose expiry a change has recorded. After that, the clock is set back to before
/// the expiry.
async fn found_expired(server: &TestServer, name: &str, change: &str) -> Issued {
    let ends = server.clock.seconds() + 60;
    let token = server.token_until(name, at(ends)).await;
    server.clock.advance(MINUTE);
    let (stack, uid) = (&server.stack, &token.uid);
    let mut owner = server.owner().await;
    let tokens = &mut owner.tokens;
    let found = match change {
        "Update" => outcome(&tokens.update(rename_request(stack, uid, "other")).await),
        "SetExpiry" => {
            let later = set_expiry_request(stack, uid, never());
            outcome(&tokens.set_expiry(later).await)
        }
        "SetExpiry by an operator" => {
            let later = set_expiry_request(stack, uid, never());
            let mut operator = server.operator().await;
            outcome(&operator.tokens.set_expiry(later).await)
        }
        "Revoke" => outcome(&tokens.revoke(revoke_request(stack, uid, "")).await),
        _ => unreachable!("{change}"),
    };
    let expected = match change {
        "Revoke" => "OK",
        _ => "FailedPrecondition TOKEN_EXPIRED",
    };
    assert_eq!(found, expected, "{change}");
    server.clock.set_back(2 * MINUTE);
    token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_found_a_token_expired_is_final_even_if_the_clock_goes_back() {
    let server = TestServer::start().await;
    for (change, reason, state) in [
        ("Update", "EXPIRED", v1::TokenState::Expired),
        ("SetExpiry", "EXPIRED", v1::TokenState::Expired),
        (
            "SetExpiry by an operator",
            "EXPIRED",
            v1::TokenState::Expired,
        ),
        ("Revoke", "REVOKED", v1::TokenState::Revoked),
    ] {
        let token = found_expired(&server, change, change).await;
        assert_eq!(server.verdict(&token.secret).await, reason, "{change}");
        let seen = server.see(&token.uid).await;
        assert_eq!(seen.state(), state, "{change}");
        let tried = attempts(&server, &token.uid).await;
        assert_eq!(tried, ["Unavailable CLOCK_SKEW"; 6], "{change}");
        assert_eq!(server.limit().await.0, 0, "{change}");
        // Once the clock has passed the instant of the last change, the reason for the refusal is
        // the token's state.
        server.clock.advance(2 * MINUTE);
        let tried = attempts(&server, &token.uid).await;
        let refused = format!("FailedPrecondition TOKEN_{reason}");
        assert_eq!(tried, [refused.as_str(); 6], "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuing_ends_the_expired_tokens_of_the_stack_for_good() {
    let server = TestServer::start().await;
    let short = server.token_until("short", at(START + 60)).await;
    server.clock.advance(MINUTE);
    server.token("short").await;
    server.clock.set_back(HOUR);
    assert_eq!(server.verdict(&short.secret).await, "EXPIRED");
    assert_eq!(server.limit().await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_issue_ends_the_expired_tokens_all_the_same() {
    let server = TestServer::start().await;
    let short = server.token_until("short", at(START + 60)).await;
    server.token("held").await;
    server.clock.advance(MINUTE);
    let request = issue_request(&server.stack, "held");
    let refused = server.owner().await.tokens.issue(request).await;
    assert_eq!(outcome(&refused), "AlreadyExists NAME_TAKEN");
    server.clock.set_back(HOUR);
    assert_eq!(server.verdict(&short.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_set_to_today_is_final_even_if_the_clock_goes_back() {
    let server = TestServer::start().await;
    for (name, expiry) in [("now", now()), ("today", on_date("2026-11-24"))] {
        let token = server.token(name).await;
        server.set_expiry(&token.uid, expiry).await;
        server.clock.set_back(24 * HOUR);
        assert_eq!(server.verdict(&token.secret).await, "EXPIRED", "{name}");
        let outcomes = attempts(&server, &token.uid).await;
        assert_eq!(outcomes, ["Unavailable CLOCK_SKEW"; 6], "{name}");
        server.clock.advance(24 * HOUR);
        let outcomes = attempts(&server, &token.uid).await;
        assert_eq!(outcomes, ["FailedPrecondition TOKEN_EXPIRED"; 6], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_stay_dead_over_a_restart_on_a_host_whose_clock_is_behind() {
    let server = TestServer::start().await;
    let (expired, revoked) = (server.token("a").await, server.token("b").await);
    server.set_expiry(&expired.uid, now()).await;
    server.revoke(&revoked.uid).await;
    let (folder, stack) = (server.data_dir.clone(), server.stack.clone());
    server.stop().await.unwrap();
    let behind = ManualClock::new();
    behind.set_back(24 * HOUR);
    let mut server = TestServer::start_in(Arc::clone(&folder), behind, |_| {}).await;
    server.stack = stack;
    assert_eq!(server.verdict(&expired.secret).await, "EXPIRED");
    assert_eq!(server.verdict(&revoked.secret).await, "REVOKED");
}
