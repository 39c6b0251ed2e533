//! Tests that Envoy's failure mode decides about a request if stacktoken is down or cannot decide.

use crate::{fixture::MeshFixture, support::database::DirectConnection};

const PATH: &str = "/v3/content_types/blog/entries";
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

fn strict(config: String) -> String {
    config
}

fn lenient(config: String) -> String {
    let (from, to) = ("failure_mode_allow: false", "failure_mode_allow: true");
    assert_eq!(config.matches(from).count(), 1);
    config.replacen(from, to, 1)
}

/// Returns the statuses for a valid token that was never used, an unknown token, and junk.
async fn statuses(fixture: &MeshFixture, good: &str) -> [u16; 3] {
    let stack = fixture.dev.get("stack_api_key");
    let mut found = [0; 3];
    for (secret, status) in [good, UNKNOWN, "junk"].into_iter().zip(&mut found) {
        let sent = [("authorization", secret), ("api_key", stack)];
        *status = fixture.envoy.send("GET", PATH, &sent).await.status;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_program_envoy_fails_closed_or_open_as_configured() {
    for (change, wanted) in [
        (strict as fn(String) -> String, [503, 503, 503]),
        (lenient, [200, 200, 200]),
    ] {
        let Some(mut fixture) = MeshFixture::start(change).await else {
            return;
        };
        let tokens = fixture.tokens().await;
        let live = &tokens["live"].secret;
        assert_eq!(statuses(&fixture, live).await, [200, 401, 401]);
        fixture.stop_stacktoken();
        assert_eq!(statuses(&fixture, live).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_answers_in_the_form_of_the_api_and_says_when_to_retry() {
    let Some(mut fixture) = MeshFixture::start(strict).await else {
        return;
    };
    fixture.stop_stacktoken();
    let answer = fixture.envoy.send("GET", PATH, &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(body["error_code"], 503, "{body}");
    assert_eq!(body["errors"], serde_json::json!({}), "{body}");
    let message = body["error_message"].as_str().unwrap();
    assert!(message.ends_with("Send it again."), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_does_the_same_but_for_what_needs_no_store() {
    for (change, wanted) in [
        (strict as fn(String) -> String, [503, 503, 401]),
        (lenient, [200, 200, 401]),
    ] {
        let Some(fixture) = MeshFixture::start(change).await else {
            return;
        };
        let tokens = fixture.tokens().await;
        let outside =
            DirectConnection::of(&fixture.dev.folder.join(".stacktoken/stacktoken.db")).await;
        outside.corrupt().await;
        assert_eq!(statuses(&fixture, &tokens["live"].secret).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_whose_own_credential_is_no_good_decides_by_its_failure_mode() {
    let no_good = |config: String| config.replacen("Bearer SERVICE_JWT", "Bearer x.SERVICE_JWT", 1);
    let Some(fixture) = MeshFixture::start(no_good).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let told = statuses(&fixture, &tokens["live"].secret).await;
    assert_eq!(told, [503, 503, 503]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trace_that_a_client_brings_makes_a_check_fail() {
    let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let large = format!("a={}", "x".repeat(20_000));
    for change in [strict as fn(String) -> String, lenient] {
        let Some(fixture) = MeshFixture::start(change).await else {
            return;
        };
        for name in ["tracestate", "Tracestate", "baggage"] {
            let sent = [
                ("traceparent", sampled),
                (name, large.as_str()),
                ("x-stacktoken-access", "READ_WRITE"),
            ];
            let answer = fixture.envoy.send("DELETE", PATH, &sent).await;
            assert_eq!(answer.status, 401, "{name}: {}", answer.text());
        }
        // Envoy itself refuses a larger header, whatever its failure mode is.
        let larger = "x".repeat(61 * 1024);
        let sent = [("traceparent", sampled), ("tracestate", &larger)];
        let answer = fixture.envoy.send("DELETE", PATH, &sent).await;
        assert_eq!(answer.status, 431);
    }
}
