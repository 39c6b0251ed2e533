//! Tests which credentials are accepted and which are refused, with every row of the corpus.

use std::time::Duration;

use stacktoken::{
    auth::{ConnectionCredentials, Rejection},
    domain::{caller::CallerKind, clock::Clock as _},
};

use crate::{
    corpus::{self, Issuer, JWKS_URL, claims, header},
    support::{Bench, NOW},
};

async fn bench() -> Bench {
    let bench = Bench::new(corpus::ISSUERS);
    bench.fetcher.serve(JWKS_URL, Issuer::ours().jwks());
    let other = serde_json::json!({"keys": [Issuer::other().rsa_jwk("other")]});
    bench
        .fetcher
        .serve("https://other.example.com/keys", other.to_string());
    bench.auth.refresh_due().await;
    bench
}

#[tokio::test]
async fn good_credentials_are_accepted() {
    let bench = bench().await;
    for (name, value) in corpus::controls(NOW) {
        let caller = bench.ask(&value).await;
        let caller = caller.unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        assert_eq!(caller.actor.kind, CallerKind::User, "{name}");
        assert_eq!(caller.actor.issuer, corpus::ISSUER, "{name}");
        assert!(!caller.introspects, "{name}");
    }
}

#[tokio::test]
async fn bad_credentials_are_refused() {
    let bench = bench().await;
    let rows = corpus::rows(NOW);
    assert!(rows.len() > 90, "{} rows", rows.len());
    for (name, value) in rows {
        let answer = bench.ask(&value).await;
        assert!(
            matches!(answer, Err(Rejection::Invalid(_))),
            "{name}: {answer:?}"
        );
        // The second call shows that the rejected credential was not cached as verified.
        assert!(bench.ask(&value).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn addresses_in_headers_are_never_fetched() {
    let bench = bench().await;
    let before = bench.fetcher.fetches();
    for (name, value) in corpus::rows(NOW) {
        if ["jku", "x5u", "x5c", "jwk", "jwk of the attacker's own"].contains(&name) {
            assert!(bench.ask(&value).await.is_err(), "{name}");
            assert_eq!(bench.fetcher.fetches(), before, "{name}");
        }
    }
}

#[tokio::test]
async fn management_tokens_are_named_as_such() {
    let bench = bench().await;
    for (name, value) in corpus::management_tokens() {
        let answer = bench.ask(&value).await;
        assert_eq!(answer, Err(Rejection::TokenNotAcceptedHere), "{name}");
    }
}

#[tokio::test]
async fn one_value_is_needed_and_only_one() {
    let bench = bench().await;
    let (_, good) = corpus::controls(NOW).remove(0);
    let good = good.as_bytes();
    let auth = &bench.auth;
    assert!(auth.authenticate(&[good], None).await.is_ok());
    assert_eq!(auth.authenticate(&[], None).await, Err(Rejection::Missing));
    for values in [&[good, good][..], &[good, b""], &[b"", good]] {
        let answer = auth.authenticate(values, None).await;
        assert!(matches!(answer, Err(Rejection::Invalid(_))), "{answer:?}");
    }
    for bytes in [
        &b"Bearer \xc3\xa9"[..],
        b"Bearer \xff\xfe",
        &[good, b"\xa0"].concat(),
    ] {
        let answer = auth.authenticate(&[bytes], None).await;
        assert_eq!(answer, Err(Rejection::Invalid("not ASCII")));
    }
}

#[tokio::test]
async fn value_of_8_kib_is_read_and_one_byte_more_is_not() {
    let bench = bench().await;
    let sized = |padding: usize| {
        let mut claims = claims(NOW);
        claims["x"] = "x".repeat(padding).into();
        format!(
            "Bearer {}",
            Issuer::ours().sign(&header("RS256", "rsa"), &claims)
        )
    };
    let padding = (5000..6000)
        .rfind(|padding| sized(*padding).len() <= 8192)
        .unwrap();
    let (fits, exceeds) = (sized(padding), sized(padding + 1));
    assert!(fits.len() >= 8190 && exceeds.len() > 8192);
    assert!(bench.ask(&fits).await.is_ok());
    assert_eq!(
        bench.ask(&exceeds).await,
        Err(Rejection::Invalid("longer than 8 KiB"))
    );
}

#[tokio::test]
async fn every_algorithm_verifies() {
    let names = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
    ];
    let all = format!("algorithms = {names:?}");
    let bench = Bench::new(&corpus::ISSUERS.replacen(
        r#"algorithms = ["RS256", "ES256", "EdDSA"]"#,
        &all,
        1,
    ));
    bench.fetcher.serve(JWKS_URL, Issuer::ours().jwks());
    for name in names {
        let kid = match name {
            "ES256" => "p256",
            "ES384" => "p384",
            "EdDSA" => "ed25519",
            _ => "rsa",
        };
        let token = Issuer::ours().sign(&header(name, kid), &claims(NOW));
        let answer = bench.ask(&format!("Bearer {token}")).await;
        assert!(answer.is_ok(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_cached_credential_expires_with_its_jwt() {
    let bench = bench().await;
    let (_, good) = corpus::controls(NOW).remove(0);
    let first = bench.ask(&good).await.unwrap();
    let again = bench.ask(&good).await.unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&first, &again),
        "the caller is cached"
    );
    bench.clock.advance(Duration::from_secs(604));
    assert!(bench.ask(&good).await.is_ok());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.ask(&good).await, Err(Rejection::Invalid("expired")));
}

#[tokio::test]
async fn a_connections_credential_is_checked_at_each_call() {
    let bench = bench().await;
    let known = ConnectionCredentials::default();
    let recognize = |value: &str| {
        let at = bench.clock.read();
        let value = Some(value.as_bytes());
        bench.auth.recognize(value, None, &known, at)
    };
    let (_, good) = corpus::controls(NOW).remove(0);
    assert_eq!(recognize(&good), None, "nobody has verified it");
    let caller = bench.ask(&good).await.unwrap();
    assert_eq!(recognize(&good).as_ref(), Some(&caller));
    assert_eq!(recognize(&good).as_ref(), Some(&caller));
    // Neither a longer value nor another value of the same length is recognized.
    assert_eq!(recognize(&format!("{good}x")), None);
    let last = if good.ends_with('A') { "B" } else { "A" };
    assert_eq!(
        recognize(&format!("{}{last}", &good[..good.len() - 1])),
        None
    );
    bench.clock.advance(Duration::from_secs(604));
    assert!(recognize(&good).is_some());
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(recognize(&good), None, "it has expired");
}

#[tokio::test]
async fn a_connection_with_many_callers_has_each_of_them() {
    let bench = bench().await;
    let known = ConnectionCredentials::default();
    let value = |subject: usize| {
        let mut claims = claims(NOW);
        claims["sub"] = format!("user-{subject}").into();
        let jwt = Issuer::ours().sign(&header("RS256", "rsa"), &claims);
        format!("Bearer {jwt}")
    };
    let values: Vec<_> = (0..10).map(value).collect();
    for value in &values {
        bench.ask(value).await.unwrap();
    }
    for _ in 0..3 {
        for (number, value) in values.iter().enumerate() {
            let (value, at) = (Some(value.as_bytes()), bench.clock.read());
            let caller = bench.auth.recognize(value, None, &known, at).unwrap();
            assert_eq!(caller.actor.subject, format!("user-{number}"));
        }
    }
}
