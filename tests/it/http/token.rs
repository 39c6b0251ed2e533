//! Tests exchanges over `POST /oauth2/token` (RFC 8693) that succeed.

use http::Method;
use serde_json::json;
use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer,
    federated::{exchange_request, federated_request, job, pod, pods},
    http::{HttpAnswer, HttpCall},
};

pub const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Returns a request to exchange a JWT for a token of the server's stack. `changes` replaces
/// parameters; a parameter with an empty value is removed.
pub fn call(server: &TestServer, jwt: &str, changes: &[(&str, &str)]) -> HttpCall {
    let mut form = vec![
        ("grant_type", GRANT),
        ("subject_token_type", JWT),
        ("subject_token", jwt),
        ("audience", server.stack.as_str()),
    ];
    form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    server.http(Method::POST, "/oauth2/token").form(&form)
}

/// Exchanges a new assertion of the CI job.
async fn exchange(server: &TestServer, changes: &[(&str, &str)]) -> HttpAnswer {
    let jwt = server.issuer.job(server.clock.seconds());
    call(server, &jwt, changes).send().await
}

/// Returns the secret in an answer.
pub fn secret(answer: &HttpAnswer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_gets_a_secret_with_a_form_alone() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let answer = exchange(&server, &[]).await;
    let secret = secret(&answer);
    let wanted = json!({
        "access_token": secret,
        "issued_token_type": ACCESS,
        "token_type": "N_A",
        "expires_in": 900,
        "scope": "*:READ_WRITE",
    });
    assert_eq!(answer.json(), wanted);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("pragma"), "no-cache");
    assert_eq!(server.inactive(&secret).await, "");
    server.clock.advance(std::time::Duration::from_secs(900));
    assert_eq!(server.inactive(&secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_send_besides_changes_nothing() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    server.federated("other").await;
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    for more in [
        &[("subject_token_type", id_token)][..],
        &[("requested_token_type", ACCESS), ("scope", "*:READ_WRITE")],
        &[("client_id", "ci"), ("color", "red"), ("client_secret", "")],
    ] {
        let named = [&[("token_uid", uid.as_str())][..], more].concat();
        let answer = exchange(&server, &named).await;
        assert_eq!(server.inactive(&secret(&answer)).await, "", "{more:?}");
    }
    // The JWT is surrounded by white space, as if it had been read from a line of a file.
    let jwt = format!(" {}\r\n", server.issuer.job(server.clock.seconds()));
    let answer = call(&server, &jwt, &[("token_uid", &uid)]).send().await;
    secret(&answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_narrows_the_modules_and_never_widens_them() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    for (scope, granted) in [
        ("*:READ", "*:READ"),
        ("entry:READ", "entry:READ"),
        ("entry:READ_WRITE", "entry:READ_WRITE"),
        ("entry:READ_WRITE asset:READ", "entry:READ_WRITE asset:READ"),
    ] {
        let answer = exchange(&server, &[("scope", scope)]).await;
        assert_eq!(answer.json()["scope"], granted, "{answer:?}");
        let secret = secret(&answer);
        for (action, needed) in [
            ("entry.read", &["*:READ", "entry:READ"][..]),
            ("entry.update", &["entry:READ_WRITE"]),
            ("asset.read", &["*:READ", "asset:READ"]),
            ("asset.update", &[]),
        ] {
            let verdict = server.introspect(&secret, &[action]).await;
            let allowed = needed.iter().any(|needed| granted.contains(needed));
            let decision = verdict.decision();
            assert_eq!(decision == v1::Decision::Allow, allowed, "{scope} {action}");
        }
    }
    let reads = v1::IssueRequest {
        permissions: Some(crate::support::permissions(v1::Access::Read)),
        ..federated_request(&server.stack, "reads")
    };
    let issued = server.owner().await.tokens.issue(reads).await.unwrap();
    let uid = issued.into_inner().token.unwrap().token_uid;
    for (scope, granted) in [
        ("", "*:READ"),
        ("*:READ_WRITE", "*:READ"),
        ("entry:READ_WRITE", "entry:READ"),
    ] {
        let answer = exchange(&server, &[("token_uid", &uid), ("scope", scope)]).await;
        assert_eq!(answer.json()["scope"], granted, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_over_http_is_the_one_over_grpc() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let claims = job(server.clock.seconds(), json!({}));
    let jwt = server.issuer.sign(&claims);
    let answer = call(&server, &jwt, &[("token_uid", &uid)]).send().await;
    let lost = secret(&answer);
    // The answer over HTTP was lost, and the client repeats the request over gRPC.
    let again = server.exchange(&claims, &uid).await.unwrap();
    assert_eq!(server.inactive(&lost).await, "NOT_RECOGNIZED");
    assert_eq!(server.inactive(&again.secret).await, "");
    let rows = server.audit().await.into_iter();
    let rows: Vec<_> = rows
        .filter(|row| row.method.ends_with("/Exchange"))
        .collect();
    let row = rows.last().unwrap();
    assert_eq!(row.call_id, answer.header("x-request-id"));
    let actor = row.actor.clone().unwrap();
    assert_eq!(actor.kind(), v1::CallerKind::Workload);
    assert!(rows.iter().all(|other| other.actor == row.actor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_over_http_and_grpc_share_one_rate_limit() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 8.try_into().unwrap();
    })
    .await;
    let stack = "blt00c0ffee00c0ffee";
    for _ in 0..16 {
        let claims = job(server.clock.seconds(), json!({}));
        let mut workload = server.workload(&claims).await;
        let _ = workload
            .exchange
            .exchange(exchange_request(stack, ""))
            .await;
    }
    let answer = exchange(&server, &[("audience", stack)]).await;
    assert_eq!(answer.refusal(), (429, "temporarily_unavailable".into()));
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_no_refusal_and_uses_up_no_jwt() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let jwt = server.issuer.job(server.clock.seconds());
    let outside = server.outside().await;
    outside.corrupt().await;
    let answer = call(&server, &jwt, &[]).send().await;
    assert_eq!(answer.refusal(), (503, "temporarily_unavailable".into()));
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(answer.header("cache-control"), "no-store");
    outside.restore().await;
    secret(&call(&server, &jwt, &[]).send().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jwt_of_a_pod_is_exchanged_again() {
    let server = TestServer::start().await;
    server.federated_as("pods", pods()).await;
    let jwt = server.issuer.sign(&pod(server.clock.seconds()));
    let first = secret(&call(&server, &jwt, &[]).send().await);
    let second = secret(&call(&server, &jwt, &[]).send().await);
    for secret in [first, second] {
        assert_eq!(server.inactive(&secret).await, "");
    }
}
