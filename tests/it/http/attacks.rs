//! Tests requests with an ambiguous length or head, pages of other origins, and slow bodies.

use std::time::Duration;

use http::Method;

use crate::support::{TestServer, raw::TestCaller};

/// A text that would be read as a second request if the length of the first were misread.
const SMUGGLED: &str = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";

/// Returns the status of each answer in the bytes that the server has sent.
fn statuses(answer: &str) -> Vec<&str> {
    let starts = answer.match_indices("HTTP/1.1 ");
    starts
        .map(|(start, _)| &answer[start + 9..start + 12])
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_ambiguous_length_is_refused_and_nothing_after_it_is_answered() {
    let server = TestServer::start().await;
    let chunked = "transfer-encoding: chunked\r\n";
    for head in [
        format!("content-length: 5\r\n{chunked}"),
        format!("{chunked}content-length: 5\r\n"),
        "content-length: 5\r\ncontent-length: 6\r\n".into(),
        "content-length: 5, 6\r\n".into(),
        "content-length: +5\r\n".into(),
        "content-length: -1\r\n".into(),
        "content-length: 5x\r\n".into(),
        "transfer-encoding: chunked, identity\r\n".into(),
        "transfer-encoding: xchunked\r\n".into(),
        "transfer-encoding : chunked\r\n".into(),
        "content-length : 5\r\n".into(),
    ] {
        let request =
            format!("POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\n{SMUGGLED}");
        let answer = server.raw_http(request.as_bytes()).await;
        let statuses = statuses(&answer);
        assert!(!answer.contains("\"openapi\""), "{head:?}: {answer}");
        assert!(
            statuses.len() <= 1 && !statuses.contains(&"200"),
            "{head:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_head_is_refused() {
    let server = TestServer::start().await;
    for head in [
        "GET /openapi.json HTTP/1.1\r\nhost: x\r\nx-a: b\rc\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\nhost: x\r\n folded: x\r\n\r\n",
        "GET /openapi.json HTTP/1.1\r\nhost: x\r\nx(a): b\r\n\r\n",
        "GET /openapi.json\r\n\r\n",
        "GET /open api.json HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /openapi.json HTTP/9.9\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = server.raw_http(head.as_bytes()).await;
        assert!(!answer.contains("\"openapi\""), "{head:?}: {answer}");
        assert!(!statuses(&answer).contains(&"200"), "{head:?}: {answer}");
    }
}

/// hyper accepts a line that ends with LF alone, as RFC 9112 §2.2 permits. What matters is that the
/// head ends only at an empty line, so that the rest is not read as a second request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_line_feed_makes_no_second_request() {
    let server = TestServer::start().await;
    for body in ["0\n\n", "0\r\n\n", "5\ntoken\n0\n\n"] {
        let request = format!(
            "POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let answer = server.raw_http(request.as_bytes()).await;
        assert!(!answer.contains("\"openapi\""), "{body:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_connection_are_answered_in_their_order() {
    let server = TestServer::start().await;
    let closing = SMUGGLED.replace("host: x", "host: x\r\nconnection: close");
    let two = format!("POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n{closing}");
    let answer = server.raw_http(two.as_bytes()).await;
    assert_eq!(statuses(&answer), ["404", "200"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_arrive_ends_the_request_within_its_deadline() {
    let server =
        TestServer::start_with(|tuning| tuning.deadline = Duration::from_millis(300)).await;
    let head = "POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\ntok";
    let answer = server.raw_http(head.as_bytes()).await;
    assert_eq!(statuses(&answer), ["408"], "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_chunk_is_a_bad_request_and_not_a_late_body() {
    let server = TestServer::start().await;
    for body in [
        "zz\r\n",
        "5\r\ntokenXX\r\n",
        "5;\u{0}\n\r\ntoken\r\n0\r\n\r\n",
    ] {
        let request = format!(
            "POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        );
        let answer = server.raw_http(request.as_bytes()).await;
        assert_eq!(statuses(&answer), ["400"], "{body:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_is_permitted_nothing() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let preflight = server.http(Method::OPTIONS, "/v3/stacks/management_tokens");
    let preflight = preflight
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authtoken,content-type")
        .send()
        .await;
    let simple = server.http(Method::POST, "/oauth2/revoke");
    let simple = simple
        .header("origin", "https://evil.example")
        .form(&[("token", "x")]);
    let simple = simple.send().await;
    assert_eq!(simple.status, 401);
    let with_credential = server.http(Method::POST, "/oauth2/revoke").bearer(&jwt);
    let with_credential = with_credential.header("origin", "https://evil.example");
    let with_credential = with_credential.form(&[("token", "x")]).send().await;
    for answer in [preflight, simple, with_credential] {
        let names = answer.headers.keys().map(http::HeaderName::as_str);
        let cors: Vec<_> = names
            .filter(|name| name.starts_with("access-control"))
            .collect();
        assert!(cors.is_empty(), "{cors:?}");
    }
}
