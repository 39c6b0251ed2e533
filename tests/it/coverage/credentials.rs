//! Calls each RPC with every kind of invalid credential.

use http::Method;
use serde_json::{Value, json};
use tonic::Code;

use super::table::{Audience, Fixture, TABLE, right_caller};
use crate::support::{
    ISSUER, TestIssuer, TestServer, federated,
    raw::{Metadata, call, outcome},
};

/// Returns valid claims with some of them replaced by those in `other`. A `null` removes the claim.
fn claims(server: &TestServer, subject: &str, kind: &str, other: Value) -> Value {
    let now = server.clock.seconds();
    let mut claims = match kind {
        "workload" => federated::job(now, json!({})),
        kind => json!({
            "iss": ISSUER, "aud": "stacktoken", "sub": subject, "kind": kind,
            "iat": now, "exp": now + 3600,
        }),
    };
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let claims = claims.as_object().unwrap().iter();
    claims
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

type Case = (&'static str, Metadata, &'static str);

/// Returns the invalid credentials. Each has the claims of a permitted caller, so the call can only
/// fail because of the one fault of the credential.
fn cases(server: &TestServer, (subject, kind): (&str, &str), secret: &str) -> Vec<Case> {
    let now = server.clock.seconds();
    let signed = |other| server.issuer.sign(&claims(server, subject, kind, other));
    let good = signed(json!({}));
    let foreign = TestIssuer::new().sign(&claims(server, subject, kind, json!({})));
    let (head, tail) = good.split_at(good.len() - 40);
    let wrong = |what, jwt: String| (what, Metadata::bearer(&jwt), "CREDENTIAL_INVALID");
    let token = |what, value: String| {
        (
            what,
            Metadata::authorization(value),
            "TOKEN_NOT_ACCEPTED_HERE",
        )
    };
    let raw = |what, value: Vec<u8>| (what, Metadata::authorization(value), "CREDENTIAL_INVALID");
    vec![
        ("none", Metadata::nothing(), "CREDENTIAL_MISSING"),
        (
            "in another header",
            Metadata::nothing().and("authorization-bin", format!("Bearer {good}")),
            "CREDENTIAL_MISSING",
        ),
        wrong("no JWT", "not.a.jwt".into()),
        wrong(
            "two parts of three",
            good.rsplit_once('.').unwrap().0.into(),
        ),
        wrong("a cut signature", head.into()),
        wrong("another's signature", foreign),
        wrong("a turned signature", format!("{head}{}", reversed(tail))),
        wrong("expired", signed(json!({ "exp": now - 6 }))),
        wrong("not yet valid", signed(json!({ "nbf": now + 60 }))),
        wrong("no expiry", signed(json!({ "exp": null }))),
        wrong(
            "an expiry in words",
            signed(json!({ "exp": (now + 3600).to_string() })),
        ),
        wrong("another audience", signed(json!({ "aud": "another" }))),
        wrong("no audience", signed(json!({ "aud": null }))),
        wrong(
            "another issuer",
            signed(json!({ "iss": "https://else.test" })),
        ),
        wrong("no issuer", signed(json!({ "iss": null }))),
        wrong("nobody", signed(json!({ "sub": "" }))),
        raw("nothing at all", Vec::new()),
        raw("another scheme", format!("Basic {good}").into()),
        raw("no scheme", good.clone().into()),
        raw("not ASCII", format!("Bearer {good}é").into()),
        raw(
            "longer than 8 KiB",
            format!("Bearer {}", "a".repeat(8 * 1024)).into(),
        ),
        (
            "given twice",
            Metadata::bearer(&good).and("authorization", format!("Bearer {good}")),
            "CREDENTIAL_INVALID",
        ),
        (
            "given twice, the first invalid",
            Metadata::authorization("Bearer junk").and("authorization", format!("Bearer {good}")),
            "CREDENTIAL_INVALID",
        ),
        token("a management token", format!("Bearer {secret}")),
        token(
            "a management token in lower case",
            format!("bearer {secret}"),
        ),
        token("a bare management token", secret.into()),
    ]
}

fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_refuses_every_credential_that_proves_nothing() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let fixture = Fixture::new(&server).await;
    let before = server.audit().await;
    // No credential is read where the secret in the message is the only one.
    for row in TABLE.iter().filter(|row| row.whom != Audience::Holders) {
        let part = right_caller(row.whom);
        let kind = match part {
            crate::support::raw::TestCaller::Operator => "operator",
            crate::support::raw::TestCaller::Introspector => "service",
            crate::support::raw::TestCaller::Workload => "workload",
            _ => "user",
        };
        for (what, sent, reason) in cases(&server, (part.subject(), kind), &fixture.secret) {
            let answered = call(&channel, row.path, sent, (row.request)(&fixture)).await;
            let wanted = (Code::Unauthenticated, reason.to_owned());
            assert_eq!(outcome(&answered), wanted, "{}: {what}", row.path);
            let words = format!("{:?}", answered.unwrap_err());
            assert!(!words.contains(&fixture.secret), "{}: {what}", row.path);
        }
    }
    // Calls of unauthenticated callers are counted in metrics, never in audit rows (R14).
    assert_eq!(server.audit().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claims_that_are_tampered_with_are_good_as_they_are() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let fixture = Fixture::new(&server).await;
    let claims = claims(&server, "owner", "user", json!({}));
    let sent = Metadata::bearer(&server.issuer.sign(&claims));
    let row = TABLE
        .iter()
        .find(|row| row.path.ends_with("/Issue"))
        .unwrap();
    let answered = call(&channel, row.path, sent, (row.request)(&fixture)).await;
    assert_eq!(outcome(&answered), (Code::Ok, String::new()));
}

/// The HTTP port passes the values of `authorization` on to the same authenticator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_port_refuses_every_credential_that_proves_nothing() {
    let server = TestServer::start().await;
    let fixture = Fixture::new(&server).await;
    let before = server.audit().await;
    let introspect = format!("/oauth2/introspect/{}", fixture.stack);
    let form = [("token", fixture.secret.as_str())];
    for who in [("content-api", "service"), ("owner", "user")] {
        for (what, sent, _) in cases(&server, who, &fixture.secret) {
            let mut call = if who.1 == "service" {
                server.http(Method::POST, &introspect).form(&form)
            } else {
                let call = server.http(Method::GET, "/v3/stacks/management_tokens");
                call.header("api_key", &fixture.stack)
            };
            for (name, value) in sent.0 {
                // The client of this test cannot send other text.
                let Some(value) = String::from_utf8(value).ok().filter(|text| text.is_ascii())
                else {
                    continue;
                };
                call = call.header(name, &value);
            }
            let answer = call.send().await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            let words = format!("{answer:?}");
            assert!(!words.contains(&fixture.secret), "{what}");
        }
    }
    assert_eq!(server.audit().await, before);
}
