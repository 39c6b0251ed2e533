//! Tests how a verdict is mapped to headers for the upstream service, or to an HTTP status for the
//! client.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use stacktoken::grpc::pb::v1::Access::{Read, ReadWrite};

use super::{ENTRIES, UNKNOWN};
use crate::support::{
    TestServer, at,
    checks::{EnvoyAnswer, Http},
    permissions,
    requests::{branches, modules},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_request_goes_on_with_who_it_is_from_and_without_the_credential() {
    let server = TestServer::start().await;
    let writer = server.token("writer").await;
    let reader = server.token_with("reader", permissions(Read)).await;
    for (token, method, access) in [(&writer, "POST", "READ_WRITE"), (&reader, "GET", "READ")] {
        let told = server
            .check(server.request(method, ENTRIES, &token.secret))
            .await;
        assert_eq!(told.outcome(), "OK");
        assert_eq!(told.header("x-stacktoken-stack"), server.stack);
        assert_eq!(told.header("x-stacktoken-token"), token.uid);
        assert_eq!(told.header("x-stacktoken-access"), access);
        let EnvoyAnswer::Allowed(ok) = told else {
            panic!("{told:?}")
        };
        assert_eq!(ok.headers.len(), 3);
        assert!(ok.response_headers_to_add.is_empty());
        let mut wanted =
            BTreeSet::from(["authorization", "cookie", "proxy-authorization"].map(str::to_owned));
        for last in ["stack", "token", "access"] {
            for joints in [["_", "_"], ["_", "-"], ["-", "_"]] {
                wanted.insert(format!("x{}stacktoken{}{last}", joints[0], joints[1]));
            }
        }
        let removed: BTreeSet<_> = ok.headers_to_remove.into_iter().collect();
        assert_eq!(removed, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reason_has_its_status() {
    let server = TestServer::start().await;
    let live = server.token("live").await.secret;
    let reader = server.token_with("reader", permissions(Read)).await.secret;
    let narrow = modules(ReadWrite, &[("asset", ReadWrite)]);
    let assets = server.token_with("assets", narrow).await.secret;
    let narrow = branches(ReadWrite, &["develop"], &["live"]);
    let branch = server.token_with("branch", narrow).await.secret;
    let revoked = server.token("revoked").await;
    server.revoke(&revoked.uid).await;
    let soon = server.clock.seconds() + 60;
    let expired = server.token_until("expired", at(soon)).await.secret;
    server.clock.advance(Duration::from_secs(61));
    let rule = "/v3/workflows/publishing_rules";
    let publish = "/v3/content_types/blog/entries/e1/publish";
    let ask = |method: &str, path: &str, secret: &str| server.request(method, path, secret);
    for (asked, wanted) in [
        (ask("GET", ENTRIES, &live), "OK"),
        (ask("HEAD", ENTRIES, &live), "OK"),
        (ask("POST", publish, &live), "OK"),
        (ask("GET", ENTRIES, UNKNOWN), "401 NOT_RECOGNIZED"),
        (ask("GET", ENTRIES, &revoked.secret), "401 REVOKED"),
        (ask("GET", ENTRIES, &expired), "401 EXPIRED"),
        (ask("POST", publish, &reader), "403 READ_ONLY"),
        (ask("GET", ENTRIES, &assets), "403 MODULE_NOT_GRANTED"),
        (ask("GET", "/v3/assets", &assets), "OK"),
        (
            ask("POST", "/v3/bulk/publish", &assets),
            "403 MODULE_NOT_GRANTED",
        ),
        (ask("GET", ENTRIES, &branch), "403 BRANCH_NOT_GRANTED"),
        (ask("GET", ENTRIES, &branch).with("branch", "develop"), "OK"),
        (ask("GET", ENTRIES, &branch).with("branch", "live"), "OK"),
        (
            ask("GET", ENTRIES, &branch).with("branch", "main"),
            "403 BRANCH_NOT_GRANTED",
        ),
        (
            ask("POST", "/v3/stacks/management_tokens", &live),
            "403 NEVER_ALLOWED",
        ),
        (ask("POST", rule, &live), "403 FACT_MISSING"),
        (
            ask("POST", rule, &live).route("fact.has_approvers", "false"),
            "OK",
        ),
        (
            ask("POST", rule, &live).route("fact.has_approvers", "true"),
            "403 NEVER_ALLOWED",
        ),
        (
            ask("GET", ENTRIES, &live).route("actions", "entry.peel"),
            "403 ACTION_UNKNOWN",
        ),
    ] {
        let told = server.outcome_of(asked.clone()).await;
        assert_eq!(
            told,
            wanted,
            "{:?}",
            envoy_types::ext_authz::v3::pb::CheckRequest::from(asked)
        );
    }
    server.suspend().await;
    let told = server.outcome_of(ask("GET", ENTRIES, &live)).await;
    assert_eq!(told, "403 STACK_SUSPENDED");
    server.resume().await;
    assert_eq!(server.outcome_of(ask("GET", ENTRIES, &live)).await, "OK");
    server.remove().await;
    let told = server.outcome_of(ask("GET", ENTRIES, &live)).await;
    assert_eq!(told, "401 REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_a_mistyped_and_a_foreign_token_are_answered_with_the_same_bytes() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let other = server.register("Another stack").await;
    let mistyped = token.replace("stk1_", "stk2_");
    let long = "a".repeat(100_000);
    let mut answers = BTreeSet::new();
    for (secret, stack) in [
        (UNKNOWN, server.stack.as_str()),
        (&mistyped, &server.stack),
        (&long, &server.stack),
        ("Bearer", &server.stack),
        (&token, &other),
        (&token, "blt0000000000000000"),
    ] {
        let asked = Http::get(ENTRIES)
            .with("authorization", secret)
            .with("api_key", stack);
        let EnvoyAnswer::Denied(denied) = server.check(asked).await else {
            panic!("{stack}")
        };
        answers.insert(denied.encode_to_vec());
    }
    assert_eq!(answers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_unrecognized_tokens_are_still_denied_and_hide_no_good_one() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognized_per_second = 1.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await.secret;
    for _ in 0..10 {
        let asked = server.request("GET", ENTRIES, UNKNOWN);
        assert_eq!(server.outcome_of(asked).await, "401 NOT_RECOGNIZED");
    }
    let asked = server.request("GET", ENTRIES, &token);
    assert_eq!(server.outcome_of(asked).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_never_repeats_the_credential() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.revoke(&token.uid).await;
    let secret = &token.secret;
    for asked in [
        server.request("GET", ENTRIES, secret),
        server.request("GET", &format!("/v3/{secret}"), secret),
        server
            .request("GET", ENTRIES, secret)
            .with("branch", secret),
        server.request("GET", ENTRIES, &format!("Basic {secret}")),
        Http::get(ENTRIES)
            .with("authorization", UNKNOWN)
            .with("api_key", secret),
        server
            .request("GET", ENTRIES, UNKNOWN)
            .route(&format!("fact.{secret}"), "true"),
    ] {
        let told = server.check(asked).await;
        assert_ne!(told.outcome(), "OK");
        assert!(!format!("{told:?}").contains(&secret[5..]));
    }
}

/// Returns the lines of the metric that counts checks.
async fn counted(server: &TestServer) -> Vec<String> {
    let exposed = server.metrics().await;
    let lines = exposed
        .lines()
        .filter(|line| line.starts_with("stacktoken_checks_total{"));
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_are_counted_by_how_they_were_answered() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    for _ in 0..2 {
        server.check(server.request("GET", ENTRIES, &token)).await;
    }
    server
        .check(server.request("GET", "/nowhere", &token))
        .await;
    let told = counted(&server).await;
    for line in [
        "stacktoken_checks_total{outcome=\"ALLOWED\",reason=\"OK\"} 2",
        "stacktoken_checks_total{outcome=\"DENIED\",reason=\"ROUTE_UNKNOWN\"} 1",
    ] {
        assert!(told.iter().any(|told| told == line), "{told:#?}");
    }
    assert_eq!(told.len(), 2, "{told:#?}");
}
