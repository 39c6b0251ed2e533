//! Tests malformed requests of clients. All are denied and none is an error, because an Envoy with
//! `failure_mode_allow` would let a request pass on an error.

use tonic::Code;

use super::ENTRIES;
use crate::support::{
    TestServer,
    checks::{EnvoyAnswer, Http},
    raw::call,
};

const MISSING: &str = "401 CREDENTIAL_MISSING";
const INVALID: &str = "401 CREDENTIAL_INVALID";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credential_is_one_token_bare_or_after_bearer() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let asked = |value: &str| server.request("GET", ENTRIES, value);
    for (value, wanted) in [
        (token.clone(), "OK"),
        (format!("Bearer {token}"), "OK"),
        (format!("bearer {token}"), "OK"),
        (format!("BEARER {token}"), "OK"),
        (String::new(), MISSING),
        (format!("Bearer  {token}"), INVALID),
        (format!("Bearer {token} "), INVALID),
        (format!(" {token}"), INVALID),
        (format!("Bearer\t{token}"), INVALID),
        ("Bearer ".into(), INVALID),
        (format!("Basic {token}"), INVALID),
        (format!("Bearer Bearer {token}"), INVALID),
        (format!("{token},{token}"), INVALID),
        (format!("Bearer {token}, Bearer {token}"), INVALID),
        (format!("{token},"), INVALID),
        (format!("{token}\u{e9}"), "401 NOT_RECOGNIZED"),
    ] {
        assert_eq!(server.outcome_of(asked(&value)).await, wanted, "{value:?}");
        let raw = server.outcome_of(asked(&value).raw()).await;
        assert_eq!(raw, wanted, "{value:?} in the raw list");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_once_is_refused_twice_in_either_form() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let good = || server.request("GET", ENTRIES, &token);
    let stack = server.stack.as_str();
    for (asked, wanted) in [
        (good().without("authorization"), MISSING),
        (good().with("authorization", &token), INVALID),
        (
            good().raw().with_raw("authorization", token.as_bytes()),
            INVALID,
        ),
        (good().raw().with_raw("Authorization", b"x"), INVALID),
        (good().with("Authorization", "x"), INVALID),
        // One value is in the header map and one in the raw list, which still makes two values.
        (good().with_raw("authorization", token.as_bytes()), INVALID),
        (good().with("authtoken", "x"), INVALID),
        (good().with("auth_token", "x"), INVALID),
        (good().with("Auth-Token", "x"), INVALID),
        (good().with("access_token", "x"), INVALID),
        (good().with("access-token", "x").raw(), INVALID),
        (good().with("x-authtoken", "x"), INVALID),
        (good().with("X-Auth-Token", "x"), INVALID),
        (good().with("x_auth_token", "x"), INVALID),
        (
            good().without("authorization").with("authtoken", "x"),
            MISSING,
        ),
        (good().without("api_key"), "412 STACK_KEY_MISSING"),
        (
            good().without("api_key").with("api_key", ""),
            "412 STACK_KEY_MISSING",
        ),
        (good().with("api_key", stack), "412 STACK_KEY_INVALID"),
        (
            good().raw().with_raw("api_key", stack.as_bytes()),
            "412 STACK_KEY_INVALID",
        ),
        (
            good().with("api-key", "blt0000000000000000"),
            "412 STACK_KEY_INVALID",
        ),
        (
            good().without("api_key").with("api-key", stack),
            "412 STACK_KEY_INVALID",
        ),
        (
            good().without("api_key").with("api_key", "stack"),
            "412 STACK_KEY_INVALID",
        ),
        (
            good()
                .without("api_key")
                .with("api_key", &stack.to_uppercase()),
            "412 STACK_KEY_INVALID",
        ),
        (good().with("branch", "main"), "OK"),
        (good().with("branch", "main").raw(), "OK"),
        (
            good().with("branch", "main").with("branch", "main"),
            "403 BRANCH_INVALID",
        ),
        (
            good()
                .raw()
                .with_raw("branch", b"a")
                .with_raw("branch", b"a"),
            "403 BRANCH_INVALID",
        ),
        (good().with("branch", ""), "403 BRANCH_INVALID"),
        (good().with("branch", "a b"), "403 BRANCH_INVALID"),
        (good().with("branch", &"b".repeat(65)), "403 BRANCH_INVALID"),
        (
            good().raw().with_raw("branch", b"\xff"),
            "403 BRANCH_INVALID",
        ),
    ] {
        let told = server.outcome_of(asked.clone()).await;
        let asked = envoy_types::ext_authz::v3::pb::CheckRequest::from(asked);
        assert_eq!(told, wanted, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_in_two_forms_counts_once_only_where_they_say_the_same() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let other = server.token("another").await.secret;
    let stack = server.stack.as_str();
    let good = |but: &str| server.request("GET", ENTRIES, &token).without(but).raw();
    for (name, value, differing, wanted) in [
        ("authorization", token.as_str(), other.as_str(), INVALID),
        (
            "api_key",
            stack,
            "blt0000000000000000",
            "412 STACK_KEY_INVALID",
        ),
        ("branch", "main", "develop", "403 BRANCH_INVALID"),
    ] {
        let bytes = value.as_bytes();
        let same = good(name).with_both(name, value, bytes);
        assert_eq!(server.outcome_of(same).await, "OK", "{name}");
        for asked in [
            good(name).with_both(name, differing, bytes),
            good(name).with_both(name, value, differing.as_bytes()),
        ] {
            assert_eq!(server.outcome_of(asked).await, wanted, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_text_are_denied() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let key = server.stack.as_bytes();
    let header = |name: &str, value: &[u8]| Http::get(ENTRIES).with_raw(name, value);
    let told = server.outcome_of(header("authorization", b"\xff\xfe").with_raw("api_key", key));
    assert_eq!(told.await, INVALID);
    let told = header("authorization", token.as_bytes()).with_raw("api_key", b"blt\xc3\x28");
    assert_eq!(server.outcome_of(told).await, "412 STACK_KEY_INVALID");
    // An invalid value in a header that the server does not use is ignored.
    let asked = server.request("GET", ENTRIES, &token).raw();
    let asked = asked.with_raw("x-note", b"\xff");
    assert_eq!(server.outcome_of(asked).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_is_denied_and_no_error() {
    use prost::Message as _;
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let channel = server.channel().await;
    let asked = server.request("GET", "/v3/~~~", &token);
    let good = envoy_types::ext_authz::v3::pb::CheckRequest::from(asked).encode_to_vec();
    let place = good.windows(3).position(|at| at == b"~~~").unwrap();
    let mut no_text = good.clone();
    no_text[place] = 0xff;
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    let large = vec![0; 1024 * 1024 + 1];
    for (what, bytes) in [
        ("a path that is not UTF-8", no_text),
        ("cut", cut),
        ("no message", vec![0x0a, 2, 0]),
        ("over 1 MiB", large),
    ] {
        let path = "/envoy.service.auth.v3.Authorization/Check";
        let answer = call(&channel, path, server.envoy(), bytes).await;
        let answer = answer.unwrap_or_else(|status| panic!("{what}: {status:?}"));
        let answer = prost::Message::decode(answer.as_slice()).unwrap();
        assert_eq!(
            EnvoyAnswer::of(answer).outcome(),
            "403 REQUEST_UNREADABLE",
            "{what}"
        );
    }
    assert_eq!(server.outcome_of(Http::default()).await, MISSING);
    let empty = call(
        &channel,
        "/envoy.service.auth.v3.Authorization/Check",
        server.envoy(),
        Vec::new(),
    );
    let empty = prost::Message::decode(empty.await.unwrap().as_slice()).unwrap();
    assert_eq!(EnvoyAnswer::of(empty).outcome(), MISSING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_far_above_the_usual_message_are_read() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let asked = server.request("GET", ENTRIES, &token);
    let asked = asked.with("x-large", &"a".repeat(900 * 1024));
    assert_eq!(server.outcome_of(asked).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_service_that_may_introspect_may_ask() {
    use crate::support::raw::{Metadata, TestCaller};
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    for part in TestCaller::ALL {
        let sent = Metadata::bearer(&part.jwt(&server));
        let asked = server.request("GET", ENTRIES, &token);
        let told = server.check_as(sent, asked).await;
        match part {
            TestCaller::Introspector => assert_eq!(told.unwrap().outcome(), "OK"),
            _ => assert_eq!(told.unwrap_err().code(), Code::PermissionDenied, "{part:?}"),
        }
    }
    // The client's token is not a credential for calling `Check`.
    for sent in [Metadata::nothing(), Metadata::authorization(token.as_str())] {
        let asked = server.request("GET", ENTRIES, &token);
        let status = server.check_as(sent, asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}
