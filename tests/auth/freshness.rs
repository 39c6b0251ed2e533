//! Tests how key sets change over time: rotation, removal, outages, and floods of unknown key ids.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use stacktoken::{
    auth::{ConnectionCredentials, Rejection},
    domain::clock::Clock as _,
};

use crate::{
    corpus::{self, Issuer, JWKS_URL, claims, header},
    support::{Bench, MAX_STALE, NOW, soon},
};

const OTHER: &str = "https://other.example.com/keys";

fn set(keys: &[(&Issuer, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(by, kid)| by.rsa_jwk(kid)).collect();
    json!({ "keys": keys }).to_string()
}

/// Returns a credential that is valid for a week.
fn signed(by: &Issuer, kid: &str) -> String {
    let mut claims = claims(NOW);
    claims["exp"] = json!(NOW + 7 * 86_400);
    format!("Bearer {}", by.sign(&header("RS256", kid), &claims))
}

/// Creates an authenticator for one issuer, whose only key is `a`.
async fn bench() -> Bench {
    let (one, _) = corpus::ISSUERS.trim_start().split_once("\n\n").unwrap();
    let bench = Bench::new(one);
    bench.fetcher.serve(JWKS_URL, set(&[(Issuer::ours(), "a")]));
    bench.auth.refresh_due().await;
    assert_eq!(bench.fetcher.fetches(), 1);
    bench
}

#[tokio::test]
async fn new_key_is_accepted_on_first_use() {
    let bench = bench().await;
    bench.fetcher.serve(
        JWKS_URL,
        set(&[(Issuer::ours(), "a"), (Issuer::other(), "b")]),
    );
    assert!(bench.ask(&signed(Issuer::other(), "b")).await.is_ok());
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn new_key_without_kid_is_accepted_on_first_use() {
    let bench = bench().await;
    let token = Issuer::other().sign(&json!({"alg": "RS256"}), &claims(NOW));
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "b")]));
    assert!(bench.ask(&format!("Bearer {token}")).await.is_ok());
}

#[tokio::test]
async fn removed_key_is_dead_after_the_refresh() {
    let bench = bench().await;
    let (old, new) = (signed(Issuer::ours(), "a"), signed(Issuer::other(), "b"));
    let connection = ConnectionCredentials::default();
    let is_known = || {
        let (value, at) = (Some(old.as_bytes()), bench.clock.read());
        let caller = bench.auth.recognize(value, None, &connection, at);
        caller.is_some()
    };
    assert!(bench.ask(&old).await.is_ok() && is_known());
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "b")]));
    bench.clock.advance(Duration::from_secs(299));
    bench.auth.refresh_due().await;
    assert!(bench.ask(&old).await.is_ok() && is_known(), "not due yet");
    bench.clock.advance(Duration::from_secs(1));
    bench.auth.refresh_due().await;
    assert!(!is_known(), "the connection still kept it");
    assert!(bench.ask(&old).await.is_err(), "the key was still cached");
    assert!(bench.ask(&new).await.is_ok());
}

#[tokio::test]
async fn key_replaced_under_the_same_kid_is_dead() {
    let bench = bench().await;
    let old = signed(Issuer::ours(), "a");
    assert!(bench.ask(&old).await.is_ok());
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "a")]));
    bench.clock.advance(Duration::from_mins(5));
    bench.auth.refresh_due().await;
    assert!(bench.ask(&old).await.is_err());
    assert!(bench.ask(&signed(Issuer::other(), "a")).await.is_ok());
}

#[tokio::test]
async fn an_unchanged_key_set_keeps_cached_callers() {
    let bench = bench().await;
    let value = signed(Issuer::ours(), "a");
    let first = bench.ask(&value).await.unwrap();
    bench.clock.advance(Duration::from_mins(5));
    bench.auth.refresh_due().await;
    assert_eq!(bench.fetcher.fetches(), 2);
    assert!(Arc::ptr_eq(&first, &bench.ask(&value).await.unwrap()));
}

#[tokio::test]
async fn flood_of_unknown_kids_is_one_fetch_a_minute() {
    let bench = bench().await;
    let flood = async |from: usize| {
        for number in from..from + 5000 {
            let header = header("RS256", &format!("kid-{number}"));
            let value = format!("Bearer {}.AAAA", corpus::unsigned(&header, &claims(NOW)));
            assert!(bench.ask(&value).await.is_err());
        }
    };
    flood(0).await;
    assert_eq!(bench.fetcher.fetches(), 2);
    bench.clock.advance(Duration::from_secs(59));
    flood(5000).await;
    assert_eq!(bench.fetcher.fetches(), 2);
    bench.clock.advance(Duration::from_secs(1));
    flood(10_000).await;
    assert_eq!(bench.fetcher.fetches(), 3);
}

#[tokio::test]
async fn flood_during_an_outage_is_one_fetch_a_minute() {
    let bench = bench().await;
    bench.fetcher.fail(JWKS_URL);
    for number in 0..100 {
        let answer = bench
            .ask(&signed(Issuer::other(), &format!("k{number}")))
            .await;
        assert!(matches!(answer, Err(Rejection::Invalid(_))), "{answer:?}");
    }
    assert_eq!(bench.fetcher.fetches(), 2);
    assert!(bench.ask(&signed(Issuer::ours(), "a")).await.is_ok());
}

#[tokio::test]
async fn callers_with_unknown_kids_share_a_fetch_and_others_do_not_wait() {
    let bench = bench().await;
    bench.fetcher.serve(
        JWKS_URL,
        set(&[(Issuer::ours(), "a"), (Issuer::other(), "b")]),
    );
    bench.fetcher.close().await;
    let bench = Arc::new(bench);
    let value = signed(Issuer::other(), "b");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (bench, value) = (Arc::clone(&bench), value.clone());
        waiting.spawn(async move { bench.ask(&value).await.is_ok() });
    }
    tokio::task::yield_now().await;
    assert_eq!(bench.fetcher.fetches(), 2);
    assert!(bench.ask(&signed(Issuer::ours(), "a")).await.is_ok());
    bench.fetcher.open();
    assert!(
        waiting
            .join_all()
            .await
            .into_iter()
            .all(|accepted| accepted)
    );
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn caller_who_gives_up_does_not_waste_the_fetch() {
    let bench = bench().await;
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "b")]));
    bench.fetcher.close().await;
    let value = signed(Issuer::other(), "b");
    tokio::select! {
        biased;
        _ = bench.ask(&value) => panic!("the gate is closed"),
        () = tokio::task::yield_now() => {}
    }
    bench.fetcher.open();
    assert!(bench.ask(&value).await.is_ok());
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn supervised_task_finishes_what_a_caller_left() {
    let bench = bench().await;
    let old = signed(Issuer::ours(), "a");
    assert!(bench.ask(&old).await.is_ok());
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "b")]));
    bench.fetcher.close().await;
    let value = signed(Issuer::other(), "b");
    tokio::select! {
        biased;
        _ = bench.ask(&value) => panic!("the gate is closed"),
        () = tokio::task::yield_now() => {}
    }
    bench.fetcher.open();
    // From here on only the background task polls the fetch, because a request with the known old
    // key does not trigger one. Once the old key is rejected, the new key set has been loaded.
    let gone = async {
        while bench.ask(&old).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = bench.auth.keep_fresh() => unreachable!("keep_fresh does not return"),
        () = soon(gone) => {}
    }
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn outage_is_tolerated_up_to_its_bound() {
    let bench = bench().await;
    let (known, fresh) = (
        signed(Issuer::ours(), "a"),
        json!({"alg": "RS256", "kid": "a"}),
    );
    assert!(bench.ask(&known).await.is_ok());
    bench.fetcher.fail(JWKS_URL);
    bench.clock.advance(MAX_STALE);
    bench.auth.refresh_due().await;
    assert!(bench.ask(&known).await.is_ok());
    assert!(bench.auth.readiness().users);
    bench.clock.advance(Duration::from_micros(1));
    assert_eq!(
        bench.ask(&known).await,
        Err(Rejection::KeysUnavailable),
        "remembered"
    );
    let later = Issuer::ours().sign(&fresh, &claims(NOW + 90_000));
    let later = format!("Bearer {later}");
    assert_eq!(bench.ask(&later).await, Err(Rejection::KeysUnavailable));
    assert_eq!(bench.auth.readiness().unavailable, [corpus::ISSUER]);
    bench.fetcher.serve(JWKS_URL, set(&[(Issuer::ours(), "a")]));
    bench.clock.advance(Duration::from_secs(5));
    bench.auth.refresh_due().await;
    assert!(bench.ask(&later).await.is_ok());
    assert!(bench.ask(&known).await.is_ok());
}

#[tokio::test]
async fn broken_key_set_wipes_nothing() {
    let bench = bench().await;
    let value = signed(Issuer::ours(), "a");
    for broken in ["", "<html>", "{}", r#"{"keys": {}}"#, "[]"] {
        bench.fetcher.serve(JWKS_URL, broken);
        bench.clock.advance(Duration::from_mins(5));
        let before = bench.fetcher.fetches();
        bench.auth.refresh_due().await;
        assert_eq!(bench.fetcher.fetches(), before + 1);
        assert!(bench.ask(&value).await.is_ok(), "{broken}");
    }
}

#[tokio::test]
async fn failed_fetch_is_tried_again_soon() {
    let bench = bench().await;
    bench.fetcher.fail(JWKS_URL);
    bench.clock.advance(Duration::from_mins(5));
    for _ in 0..3 {
        let before = bench.fetcher.fetches();
        bench.auth.refresh_due().await;
        bench.clock.advance(Duration::from_secs(4));
        bench.auth.refresh_due().await;
        assert_eq!(bench.fetcher.fetches(), before + 1);
        bench.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn slow_issuer_does_not_hold_up_another() {
    let bench = Bench::new(corpus::ISSUERS);
    bench
        .fetcher
        .serve(OTHER, set(&[(Issuer::other(), "other")]));
    bench.fetcher.stall(JWKS_URL);
    let mut claims = claims(NOW);
    claims["iss"] = "https://other.example.com".into();
    let value = Issuer::other().sign(&header("RS256", "other"), &claims);
    let value = format!("Bearer {value}");
    let served = async {
        while !bench.auth.readiness().services {
            tokio::task::yield_now().await;
        }
        bench.ask(&value).await
    };
    tokio::select! {
        () = bench.auth.keep_fresh() => unreachable!("keep_fresh does not return"),
        answer = soon(served) => assert!(answer.unwrap().introspects),
    }
}

#[tokio::test]
async fn caller_who_meets_a_scheduled_fetch_causes_no_other() {
    let bench = bench().await;
    bench
        .fetcher
        .serve(JWKS_URL, set(&[(Issuer::other(), "b")]));
    bench.clock.advance(Duration::from_mins(5));
    bench.fetcher.close().await;
    let value = signed(Issuer::other(), "b");
    let opened = async {
        tokio::task::yield_now().await;
        bench.fetcher.open();
    };
    let unknown = signed(Issuer::other(), "nobody");
    let ((), known, refused, ()) = tokio::join!(
        biased;
        bench.auth.refresh_due(),
        bench.ask(&value),
        bench.ask(&unknown),
        opened
    );
    assert!(known.is_ok() && refused.is_err());
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn kid_that_cannot_be_one_causes_no_fetch() {
    let bench = bench().await;
    for kid in [json!("k".repeat(257)), json!(7), json!(null)] {
        let token = Issuer::ours().sign(&json!({"alg": "RS256", "kid": kid}), &claims(NOW));
        assert!(bench.ask(&format!("Bearer {token}")).await.is_err());
    }
    assert_eq!(bench.fetcher.fetches(), 1);
    let longest = "k".repeat(256);
    assert!(bench.ask(&signed(Issuer::ours(), &longest)).await.is_err());
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn outage_is_one_line_in_the_log_and_its_end_another() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _log = tracing::subscriber::set_default(log);
    let file = corpus::ISSUERS.replacen(JWKS_URL, &format!("{JWKS_URL}?key=confidential"), 1);
    let (one, _) = file.trim_start().split_once("\n\n").unwrap();
    let bench = Bench::new(one);
    for _ in 0..3 {
        bench.auth.refresh_due().await;
        bench.clock.advance(Duration::from_secs(5));
    }
    let outage = lines.take();
    assert_eq!(outage.len(), 1, "{outage:?}");
    assert!(outage[0].contains(JWKS_URL) && outage[0].contains("connection refused"));
    assert!(!outage[0].contains("confidential"), "{outage:?}");
    bench.fetcher.serve(JWKS_URL, Issuer::ours().jwks());
    for _ in 0..3 {
        bench.auth.refresh_due().await;
        bench.clock.advance(Duration::from_mins(5));
    }
    let end = lines.take();
    let again = |line: &&String| line.contains("refresh recovered");
    assert_eq!(end.iter().filter(again).count(), 1, "{end:?}");
    let skipped = |kid: &str| end.iter().filter(|line| line.contains(kid)).count();
    assert_eq!(skipped("\"rsa-1024\": it is weak"), 1, "{end:?}");
    assert_eq!(skipped("rsa-for-encryption"), 1, "{end:?}");
}
