//! Tests `POST /oauth2/revoke` (RFC 7009).

use http::Method;

use crate::support::{TestServer, http::HttpAnswer};

async fn revoke(server: &TestServer, form: &[(&str, &str)]) -> HttpAnswer {
    let jwt = server.issuer.service("mailer", server.clock.seconds());
    let call = server.http(Method::POST, "/oauth2/revoke").bearer(&jwt);
    call.form(form).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_dead_and_the_answer_is_the_same_for_any_text() {
    let server = TestServer::start().await;
    let token = server.issue("leaked").await;
    let mut answers = Vec::new();
    for text in [
        token.secret.as_str(),
        token.secret.as_str(),
        "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy",
        "junk",
        "\u{0}",
    ] {
        let answer = revoke(&server, &[("token", text), ("token_type_hint", "x")]).await;
        answers.push((answer.status, answer.body));
    }
    assert!(
        answers.iter().all(|answer| *answer == (200, "".into())),
        "{answers:?}"
    );
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_audited_as_a_report_over_grpc_is() {
    let server = TestServer::start().await;
    let (one, other) = (server.issue("one").await, server.issue("other").await);
    let revoked = revoke(&server, &[("token", &one.secret)]).await;
    server.clock.advance(std::time::Duration::from_secs(1));
    let mut service = server.service_without_role().await;
    let report = stacktoken::grpc::pb::v1::ReportLeakedRequest {
        secret: other.secret,
        url: String::new(),
    };
    service.leaks.report_leaked(report).await.unwrap();
    let mut audit = server.audit().await;
    let (over_grpc, over_http) = (audit.remove(0), audit.remove(0));
    assert_eq!(over_http.call_id, revoked.header("x-request-id"));
    assert_eq!(over_http.method, over_grpc.method);
    assert_eq!(over_http.actor, over_grpc.actor);
    assert_eq!(over_http.outcome, over_grpc.outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_required() {
    let server = TestServer::start().await;
    for form in [&[][..], &[("token", "")], &[("token_type_hint", "x")]] {
        let answer = revoke(&server, form).await;
        assert_eq!(answer.refusal(), (400, "invalid_request".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_credential_a_secret_ends_its_own_session_and_nothing_else() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let (own, other) = (server.session(&uid).await, server.session(&uid).await);
    let token = server.issue("ordinary").await;
    let mut answers = Vec::new();
    for text in [&own.secret, &own.secret, &token.secret, "junk"] {
        let call = server.http(Method::POST, "/oauth2/revoke");
        let answer = call.form(&[("token", text)]).send().await;
        answers.push((answer.status, answer.body));
    }
    let same = answers.iter().all(|answer| *answer == (200, "".into()));
    assert!(same, "{answers:?}");
    assert_eq!(server.inactive(&own.secret).await, "REVOKED");
    assert_eq!(server.inactive(&other.secret).await, "");
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let form = [("token", other.secret.as_str())];
    for (name, value, status) in [
        ("authorization", "Bearer junk", 401),
        ("authtoken", "junk", 401),
        ("origin", "https://evil.example", 401),
    ] {
        let call = server.http(Method::POST, "/oauth2/revoke").form(&form);
        let answer = call.header(name, value).send().await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    let call = server.http(Method::POST, "/oauth2/revoke");
    let missing = call.form(&[]).send().await;
    assert_eq!(missing.refusal(), (400, "invalid_request".into()));
    assert_eq!(server.inactive(&other.secret).await, "");
}
