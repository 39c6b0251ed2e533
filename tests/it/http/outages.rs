//! Tests that an outage is a 503 with `retry-after` and never a verdict (R13), and that the same
//! limits apply as over gRPC.

use http::Method;
use serde_json::json;

use crate::support::{TestServer, raw::TestCaller};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_503_and_never_inactive() {
    let server = TestServer::start().await;
    let token = server.issue("deploy").await;
    let uid = token.token.unwrap().token_uid;
    let outside = server.outside().await;
    outside.corrupt().await;
    for secret in [
        token.secret.as_str(),
        "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy",
    ] {
        let answer = server.ask(&[("token", secret)]).send().await;
        assert_eq!(answer.refusal(), (503, "temporarily_unavailable".into()));
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert!(!String::from_utf8_lossy(&answer.body).contains("active"));
    }
    let jwt = TestCaller::Introspector.jwt(&server);
    let revoked = server.http(Method::POST, "/oauth2/revoke").bearer(&jwt);
    let revoked = revoked.form(&[("token", &token.secret)]).send().await;
    assert_eq!(revoked.refusal(), (503, "temporarily_unavailable".into()));
    let ended = server.http(Method::POST, "/oauth2/revoke");
    let ended = ended.form(&[("token", &token.secret)]).send().await;
    assert_eq!(ended.refusal(), (503, "temporarily_unavailable".into()));
    let below = format!("/{uid}");
    let body = json!({ "token": { "name": "new", "expires_on": null, "scope": [{ "module": "$all", "acl": { "read": true } }] } });
    for call in [
        server.cms(Method::GET, ""),
        server.cms(Method::GET, &below),
        server.cms(Method::DELETE, &below),
        server.cms(Method::PUT, &below).json(&body),
        server.cms(Method::POST, "").json(&body),
    ] {
        let answer = call.send().await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
        assert!(answer.json()["error_message"].is_string());
    }
    outside.restore().await;
    let answer = server.ask(&[("token", &token.secret)]).send().await;
    assert_eq!(answer.json()["active"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_over_http_and_grpc_share_one_rate_limit() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 30.try_into().unwrap();
    })
    .await;
    let jwt = server.issuer.service("mailer", server.clock.seconds());
    let mut service = server.service_without_role().await;
    let report = || stacktoken::grpc::pb::v1::ReportLeakedRequest {
        secret: "junk".into(),
        url: String::new(),
    };
    for _ in 0..30 {
        service.leaks.report_leaked(report()).await.unwrap();
    }
    let answer = server.http(Method::POST, "/oauth2/revoke").bearer(&jwt);
    let answer = answer.form(&[("token", "junk")]).send().await;
    assert_eq!(answer.refusal(), (429, "temporarily_unavailable".into()));
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_as_the_rpcs_that_they_call() {
    let server = TestServer::start().await;
    let token = server.issue("deploy").await;
    server.ask(&[("token", &token.secret)]).send().await;
    server.http(Method::GET, "/nothing").send().await;
    let metrics = server.metrics().await;
    for labels in [
        r#"rpc_method="stacktoken.v1.IntrospectionService/Introspect",rpc_response_status_code="OK""#,
        r#"rpc_method="_OTHER",rpc_response_status_code="UNKNOWN",error_type="HTTP_404""#,
    ] {
        assert!(metrics.contains(labels), "{labels}: {metrics}");
    }
}
