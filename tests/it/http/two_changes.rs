//! Tests updates that consist of two changes, and updates by callers who may not make them.

use http::Method;
use serde_json::{Value, json};

use super::cms::{create, documented};
use crate::support::{TestServer, database::eventually};

/// Updates a token while the caller's rate limit refuses the second of the two changes. Returns the
/// message of the error, and the token after the failed update.
async fn update_half(changes: Value) -> (String, Value) {
    // The limit admits one creation, two previews and one change.
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 4.try_into().unwrap();
    })
    .await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    let call = server.cms(Method::PUT, &below).json(&changes);
    let answer = call.send().await;
    assert_eq!(answer.status, 429, "{answer:?}");
    let message = answer.json()["error_message"].as_str().unwrap().to_owned();
    let token = server.cms(Method::GET, &below).send().await.json()["token"].take();
    (message, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_the_one_that_takes_access_away_is_made_first() {
    let earlier = json!({ "token": { "name": "n", "expires_on": "2030-01-01" } });
    let (message, token) = update_half(earlier).await;
    assert!(
        message.contains("expires_on was changed, but not the other fields"),
        "{message}"
    );
    assert_eq!(token["expires_on"], "2030-01-01T00:00:00.000Z");
    assert_eq!(token["name"], "Test Token");

    let later = json!({ "token": { "name": "n", "expires_on": null } });
    let (message, token) = update_half(later).await;
    assert!(
        message.contains("other fields were changed, but not expires_on"),
        "{message}"
    );
    assert_eq!(token["expires_on"], "2120-12-10T00:00:00.000Z");
    assert_eq!(token["name"], "n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_can_rename_a_token_and_end_it() {
    let server = TestServer::start().await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let below = format!("/{}", token["uid"].as_str().unwrap());
    let today = json!({ "token": { "name": "ended", "expires_on": "2026-01-01" } });
    let answer = server.cms(Method::PUT, &below).json(&today).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["token"]["name"], "ended");
    let verdict = server.verdict(token["token"].as_str().unwrap()).await;
    assert_eq!(verdict, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_update_is_audited_as_the_change_that_it_is() {
    let server = TestServer::start().await;
    let token = create(&server, &documented()).await.json()["token"].take();
    let path = format!(
        "/v3/stacks/management_tokens/{}",
        token["uid"].as_str().unwrap()
    );
    let developer = server.issuer.user("developer", server.clock.seconds());
    for (changes, method) in [
        (json!({ "name": "x" }), "Update"),
        (json!({ "expires_on": null }), "SetExpiry"),
    ] {
        let call = server.http(Method::PUT, &path).bearer(&developer);
        let call = call.header("api_key", &server.stack);
        let answer = call.json(&json!({ "token": changes })).send().await;
        assert_eq!(answer.status, 403, "{answer:?}");
        let id = answer.header("x-request-id").to_owned();
        eventually(method, async || {
            let audit = server.audit().await;
            let mut rows = audit.iter().filter(|event| event.call_id == id);
            rows.any(|event| event.method.ends_with(method))
                .then_some(())
        })
        .await;
    }
}
