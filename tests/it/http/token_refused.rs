//! Tests what `POST /oauth2/token` (RFC 8693) refuses. If the request is malformed, the error says
//! what to correct; every other refusal has the same bytes.

use std::collections::BTreeSet;

use http::{HeaderName, Method};
use serde_json::json;
use stacktoken::grpc::pb::v1;

use super::token::{ACCESS, GRANT, call, secret};
use crate::support::{
    TestServer,
    federated::{federated_request, job, pod},
    http::HttpAnswer,
    raw::TestCaller,
};

/// Returns everything in an answer except the id of its request and its date.
fn bytes(answer: &HttpAnswer) -> String {
    let varies = |name: &HeaderName| ["x-request-id", "date"].contains(&name.as_str());
    let headers = answer.headers.iter().filter(|(name, _)| !varies(name));
    let headers: BTreeSet<_> = headers
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    let body = String::from_utf8_lossy(&answer.body);
    format!("{} {headers:?} {body}", answer.status)
}

/// Returns JWTs that prove nothing, and strings that are not JWTs.
fn no_assertions(server: &TestServer) -> Vec<String> {
    let now = server.clock.seconds();
    let sign = |other| server.issuer.sign(&job(now, other));
    let jwt = server.issuer.job(now);
    vec![
        sign(json!({ "aud": "stacktoken" })),
        sign(json!({ "iss": "https://evil.test" })),
        sign(json!({ "exp": now - 60 })),
        sign(json!({ "iat": now + 60 })),
        sign(json!({ "sub": "" })),
        sign(json!({ "jti": null })),
        format!("{jwt}x"),
        jwt[..jwt.len() - 2].to_owned(),
        format!("{jwt} {jwt}"),
        format!("{jwt}, {jwt}"),
        format!("{jwt}\nx-evil: 1"),
        format!("Bearer {jwt}"),
        server.issuer.user("owner", now),
        server.issuer.service("mailer", now),
        TestCaller::Introspector.jwt(server),
        "junk".to_owned(),
        " ".to_owned(),
        "\u{0}".to_owned(),
        "\u{e9}".to_owned(),
        "x".repeat(20_000),
        "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy".to_owned(),
    ]
}

/// Issues a federated token for the CI job, which may only read entries.
async fn reads_entries(server: &TestServer) -> String {
    let grants = vec![v1::ModuleGrant {
        module: "entry".into(),
        access: v1::Access::Read.into(),
    }];
    let permissions = v1::Permissions {
        access: v1::Access::Read.into(),
        modules: Some(v1::ModuleGrants { grants }),
        branches: None,
    };
    let request = v1::IssueRequest {
        permissions: Some(permissions),
        ..federated_request(&server.stack, "reads entries")
    };
    let issued = server.owner().await.tokens.issue(request).await.unwrap();
    issued.into_inner().token.unwrap().token_uid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_over_http_is_the_same_bytes() {
    let server = TestServer::start_with(|tuning| tuning.max_sessions_per_token = 1).await;
    let now = server.clock.seconds();
    let (uid, narrow) = (server.federated("ci").await, reads_entries(&server).await);
    let other = server.register("Other").await;
    let mut seen = BTreeSet::new();
    let mut refuse = async |jwt: &str, changes: &[(&str, &str)]| {
        let answer = call(&server, jwt, changes).send().await;
        assert_eq!(answer.status, 400, "{changes:?} {answer:?}");
        seen.insert(bytes(&answer));
    };
    let named = [("token_uid", uid.as_str())];
    for jwt in no_assertions(&server) {
        refuse(&jwt, &named).await;
        refuse(&jwt, &[("audience", "blt00c0ffee00c0ffee")]).await;
        refuse(&jwt, &[("audience", "nonsense")]).await;
    }
    for other in [
        json!({ "environment": "staging" }),
        json!({ "event_name": "pull_request" }),
    ] {
        refuse(&server.issuer.sign(&job(now, other)), &named).await;
    }
    refuse(&server.issuer.sign(&pod(now)), &named).await;
    let jwt = server.issuer.job(now);
    for changes in [
        &[][..],
        &[("audience", "blt00c0ffee00c0ffee")],
        &[("audience", "nonsense")],
        &[("audience", other.as_str())],
        &[("token_uid", "nonsense")],
        &[("token_uid", "01890000-0000-7000-8000-000000000001")],
        &[("token_uid", uid.as_str()), ("scope", "nothing:READ")],
        &[("token_uid", narrow.as_str()), ("scope", "asset:READ")],
    ] {
        refuse(&jwt, changes).await;
    }
    // No refusal has used the JWT up. From here on the JWT is used, and the token has the only
    // session that it may have; both are further causes of a refusal.
    let secret = secret(&call(&server, &jwt, &named).send().await);
    assert_eq!(server.inactive(&secret).await, "");
    refuse(&jwt, &named).await;
    refuse(&server.issuer.job(now), &named).await;
    server.revoke(&uid).await;
    refuse(&server.issuer.job(now), &named).await;
    assert_eq!(seen.len(), 1, "{seen:#?}");
    let only = seen.first().unwrap();
    assert!(only.contains(r#""error":"invalid_request""#), "{only}");
    assert!(
        only.contains("no-store") && !only.contains("www-authenticate"),
        "{only}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_beside_the_jwt_is_refused_and_nothing_is_exchanged() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let jwt = server.issuer.job(server.clock.seconds());
    let owner = server.issuer.user("owner", server.clock.seconds());
    for (name, value) in [
        ("authorization", format!("Bearer {jwt}")),
        ("authorization", format!("Bearer {owner}")),
        ("authorization", "Basic Y2xpZW50OnNlY3JldA==".to_owned()),
        ("authorization", String::new()),
        ("authtoken", jwt.clone()),
        ("authtoken", owner.clone()),
    ] {
        let answer = call(&server, &jwt, &[]).header(name, &value).send().await;
        assert_eq!(answer.refusal(), (400, "invalid_request".into()), "{name}");
        assert!(String::from_utf8_lossy(&answer.body).contains(name));
    }
    for name in ["client_secret", "client_assertion", "access_token"] {
        let answer = call(&server, &jwt, &[(name, &jwt)]).send().await;
        assert_eq!(answer.refusal(), (400, "invalid_request".into()), "{name}");
        assert!(String::from_utf8_lossy(&answer.body).contains(name));
    }
    // The JWT is not accepted as a credential anywhere else in the request.
    let bare = [("subject_token", "")];
    let header = call(&server, &jwt, &bare).bearer(&jwt).send().await;
    assert_eq!(header.refusal(), (400, "invalid_request".into()));
    let path = format!("/oauth2/token?subject_token={jwt}");
    let query = server.http(Method::POST, &path).form(&[]).send().await;
    assert_eq!(query.refusal(), (400, "invalid_request".into()));
    let cookie = call(&server, &jwt, &bare).header("cookie", &format!("subject_token={jwt}"));
    assert_eq!(
        cookie.send().await.refusal(),
        (400, "invalid_request".into())
    );
    secret(&call(&server, &jwt, &[]).send().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_wrong_form_is_told_which_parameter_to_correct() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let jwt = server.issuer.job(server.clock.seconds());
    let saml = "urn:ietf:params:oauth:token-type:saml2";
    for (changed, value) in [
        ("grant_type", ""),
        ("subject_token", ""),
        ("subject_token_type", ""),
        ("subject_token_type", ACCESS),
        ("subject_token_type", saml),
        ("audience", ""),
        ("requested_token_type", saml),
        ("actor_token", "x"),
        ("actor_token_type", "x"),
        ("resource", "https://tokens.example.com"),
        ("scope", " "),
        ("scope", "entry"),
        ("scope", "entry:WRITE"),
        ("scope", "entry:read"),
        ("scope", ":READ"),
        ("scope", "entry:READ "),
        ("scope", "entry:READ  asset:READ"),
        ("scope", "entry:READ,asset:READ"),
        ("scope", "entry:READ entry:READ"),
        ("scope", "entry:READ entry:READ_WRITE"),
        ("scope", "*:READ entry:READ_WRITE"),
        ("scope", "*:READ *:READ"),
    ] {
        let answer = call(&server, &jwt, &[(changed, value)]).send().await;
        let expected = (400, "invalid_request".into());
        assert_eq!(answer.refusal(), expected, "{changed}={value}");
        let text = answer.json()["error_description"].to_string();
        assert!(
            text.starts_with(&format!("\"{changed} ")),
            "{changed}: {text}"
        );
    }
    for grant in ["client_credentials", "authorization_code", &GRANT[1..]] {
        let basic = call(&server, &jwt, &[("grant_type", grant)]);
        let answer = basic.header("authorization", "Basic eDp5").send().await;
        let expected = (400, "unsupported_grant_type".into());
        assert_eq!(answer.refusal(), expected, "{grant}");
    }
    for name in ["grant_type", "subject_token", "audience", "scope", "color"] {
        let answer = call(&server, &jwt, &[(name, "x"), (name, "x")])
            .send()
            .await;
        assert_eq!(answer.refusal(), (400, "invalid_request".into()), "{name}");
    }
    let typed = server.http(Method::POST, "/oauth2/token");
    let typed = typed.json(&json!({ "grant_type": GRANT })).send().await;
    assert_eq!(typed.status, 415);
    secret(&call(&server, &jwt, &[]).send().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_reads_no_secret() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let jwt = server.issuer.job(server.clock.seconds());
    let call = call(&server, &jwt, &[]).header("origin", "https://evil.example");
    let answer = call.send().await;
    assert_eq!(answer.status, 200);
    let names = answer.headers.keys().map(HeaderName::as_str);
    let cors = names.filter(|name| name.starts_with("access-control"));
    assert_eq!(cors.count(), 0);
}
