use std::time::Duration;

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, after, at,
    clients::fields,
    clock::START,
    never, now, on_date,
    requests::{outcome, set_expiry_request},
};

/// The time from `START` until the next midnight in UTC.
const TO_MIDNIGHT: Duration = Duration::from_secs(12 * 3600);
const MICROSECOND: Duration = Duration::from_micros(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_and_a_past_instant_and_any_date_up_to_today_end_a_token_at_once() {
    let server = TestServer::start().await;
    let midnight = START - 12 * 3600;
    for (name, expiry, expires_at) in [
        ("now", now(), START),
        ("this instant", at(START), START),
        ("an hour ago", at(START - 3600), START - 3600),
        ("long ago", at(-1), -1),
        ("today", on_date("2026-11-24"), midnight),
        ("yesterday", on_date("2026-11-23"), midnight - 86_400),
    ] {
        let token = server.token(name).await;
        assert_eq!(server.verdict(&token.secret).await, "OK", "{name}");
        let changed = server.set_expiry(&token.uid, expiry).await;
        assert_eq!(changed.state(), v1::TokenState::Expired, "{name}");
        assert_eq!(changed.expires_at.unwrap().seconds, expires_at, "{name}");
        assert_eq!(server.verdict(&token.secret).await, "EXPIRED", "{name}");
        let seen = server.see(&token.uid).await;
        assert_eq!(seen.state(), v1::TokenState::Expired, "{name}");
    }
    assert_eq!(server.limit().await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_is_its_first_instant_in_utc() {
    let server = TestServer::start().await;
    let token = server.token_until("tomorrow", on_date("2026-11-25")).await;
    let seen = server.see(&token.uid).await;
    let midnight = Timestamp {
        seconds: START + 12 * 3600,
        nanos: 0,
    };
    assert_eq!(seen.expires_at, Some(midnight));
    server.clock.advance(TO_MIDNIGHT - MICROSECOND);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    server.clock.advance(MICROSECOND);
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_live_until_one_microsecond_before_its_expiry_and_dead_from_it_on() {
    let server = TestServer::start().await;
    let finer_than_kept = Timestamp {
        seconds: START + 5,
        nanos: 123_456_789,
    };
    let expiry = v1::Expiry {
        expiry: Some(v1::expiry::Expiry::At(finer_than_kept)),
    };
    let token = server.token_until("precise", expiry).await;
    let seen = server.see(&token.uid).await;
    let kept = Timestamp {
        nanos: 123_456_000,
        ..finer_than_kept
    };
    assert_eq!(seen.expires_at, Some(kept));
    server.clock.advance(Duration::from_micros(5_123_455));
    assert_eq!(server.verdict(&token.secret).await, "OK");
    assert_eq!(server.see(&token.uid).await.state(), v1::TokenState::Active);
    assert_eq!(server.limit().await.0, 1);
    server.clock.advance(MICROSECOND);
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
    assert_eq!(
        server.see(&token.uid).await.state(),
        v1::TokenState::Expired
    );
    assert_eq!(server.limit().await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_token_can_be_extended_shortened_and_freed_of_its_expiry() {
    let server = TestServer::start().await;
    let token = server.token_until("deploy", at(START + 60)).await;
    for (expiry, expires_at) in [
        (at(START + 120), Some(START + 120)),
        (at(START + 30), Some(START + 30)),
        (never(), None),
        (on_date("2027-01-01"), Some(1_798_761_600)),
        (after(45, 999), Some(START + 45)),
        (at(START + 90), Some(START + 90)),
    ] {
        let changed = server.set_expiry(&token.uid, expiry).await;
        assert_eq!(changed.expires_at.map(|at| at.seconds), expires_at);
        assert_eq!(changed.state(), v1::TokenState::Active);
        let answer = server.introspect(&token.secret, &[]).await;
        let told = answer.expires_at.map(|at| at.seconds);
        assert_eq!(told, expires_at, "the next verdict has the new expiry");
    }
    server.clock.advance(Duration::from_secs(61));
    assert_eq!(
        server.verdict(&token.secret).await,
        "OK",
        "the token is live after its first expiry"
    );
    server.clock.advance(Duration::from_secs(29));
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_only_brings_an_expiry_forward() {
    const ROLE: &str = "PermissionDenied ROLE_REQUIRED";
    let server = TestServer::start().await;
    let token = server.token_until("deploy", at(START + 600)).await;
    let endless = server.token("endless").await;
    let mut operator = server.operator().await;
    for (uid, expiry, expected) in [
        (&token.uid, at(START + 601), ROLE),
        (&token.uid, never(), ROLE),
        (&token.uid, on_date("2027-01-01"), ROLE),
        (&token.uid, after(601, 0), ROLE),
        (&token.uid, after(600, 0), "OK"),
        (&token.uid, at(START + 600), "OK"),
        (&token.uid, at(START + 500), "OK"),
        (&token.uid, at(START + 501), ROLE),
        (&token.uid, now(), "OK"),
        (&endless.uid, never(), "OK"),
        (&endless.uid, at(START + 5), "OK"),
        (&endless.uid, never(), ROLE),
    ] {
        let request = set_expiry_request(&server.stack, uid, expiry.clone());
        let told = outcome(&operator.tokens.set_expiry(request).await);
        assert_eq!(told, expected, "{expiry:?}");
    }
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_suspended_stack_an_expiry_is_only_brought_forward() {
    const SUSPENDED: &str = "FailedPrecondition STACK_SUSPENDED";
    let server = TestServer::start().await;
    let token = server.token_until("deploy", at(START + 600)).await;
    server.suspend().await;
    let mut owner = server.owner().await;
    for (expiry, expected) in [
        (at(START + 601), SUSPENDED),
        (never(), SUSPENDED),
        (after(601, 0), SUSPENDED),
        (after(400, 0), "OK"),
        (at(START + 300), "OK"),
        (at(START + 301), SUSPENDED),
        (now(), "OK"),
        (now(), "FailedPrecondition TOKEN_EXPIRED"),
    ] {
        let request = set_expiry_request(&server.stack, &token.uid, expiry.clone());
        let told = outcome(&owner.tokens.set_expiry(request).await);
        assert_eq!(told, expected, "{expiry:?}");
    }
    server.resume().await;
    assert_eq!(server.verdict(&token.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_expiry_names_every_field_that_is_wrong() {
    use v1::expiry::Expiry::{After, At, Never, Now, OnDate};

    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let instant = |seconds, nanos| Some(At(Timestamp { seconds, nanos }));
    let after = |seconds, nanos| Some(After(prost_types::Duration { seconds, nanos }));
    for (expiry, expected) in [
        (after(0, 0), "expiry.after"),
        (after(-60, 0), "expiry.after"),
        (after(60, -1), "expiry.after"),
        (after(60, 1_000_000_000), "expiry.after"),
        (after(36_500 * 86_400, 1000), "expiry.after"),
        (None, "expiry"),
        (Some(Now(false)), "expiry.now"),
        (Some(Never(false)), "expiry.never"),
        (Some(OnDate(String::new())), "expiry.on_date"),
        (Some(OnDate("2026-02-29".into())), "expiry.on_date"),
        (Some(OnDate("2026-1-1".into())), "expiry.on_date"),
        (Some(OnDate("+02026-01-01".into())), "expiry.on_date"),
        (
            Some(OnDate("2026-01-01T00:00:00Z".into())),
            "expiry.on_date",
        ),
        (Some(OnDate("today".into())), "expiry.on_date"),
        (instant(253_402_300_800, 0), "expiry.at"),
        (instant(-62_135_596_801, 0), "expiry.at"),
        (instant(i64::MIN, i32::MIN), "expiry.at"),
        (instant(0, -1), "expiry.at"),
        (instant(0, 1_000_000_000), "expiry.at"),
    ] {
        let words = format!("{expiry:?}");
        let request = set_expiry_request(&server.stack, &token.uid, v1::Expiry { expiry });
        let status = owner.tokens.set_expiry(request).await.unwrap_err();
        assert_eq!(fields(&status), [expected], "{words}");
    }
    let nothing = v1::SetExpiryRequest::default();
    let status = owner.tokens.set_expiry(nothing).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "token_uid", "expiry"]);
    assert!(
        status
            .message()
            .contains("at, on_date, after, now or never"),
        "{}",
        status.message()
    );
    assert_eq!(server.verdict(&token.secret).await, "OK");
}
