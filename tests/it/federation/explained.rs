//! Tests ExplainExchange and ListFederationIssuers.

use serde_json::{Value, json};
use stacktoken::grpc::pb::v1::{self, ExchangeObstacle as Obstacle};
use tonic::Code;

use super::{live, refusal};
use crate::support::{
    TestServer,
    clients::fields,
    federated::{federation, job, pod, pods},
};

async fn explain(server: &TestServer, uid: &str, jwt: String) -> v1::ExplainExchangeResponse {
    let request = v1::ExplainExchangeRequest {
        stack_api_key: server.stack.clone(),
        token_uid: uid.into(),
        subject_token: jwt,
    };
    let mut owner = server.owner().await;
    let explained = owner.tokens.explain_exchange(request).await.unwrap();
    explained.into_inner()
}

fn obstacles(explained: &v1::ExplainExchangeResponse) -> Vec<Obstacle> {
    assert_eq!(explained.would_exchange, explained.obstacles.is_empty());
    assert_eq!(explained.would_exchange, explained.session_for.is_some());
    explained.obstacles().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_sees_rule_by_rule_what_a_jwt_lacks_and_nothing_is_consumed() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let sign = |other: Value| server.issuer.sign(&job(now, other));
    let claims = job(now, json!({}));
    let jwt = server.issuer.sign(&claims);
    for _ in 0..2 {
        let explained = explain(&server, &uid, jwt.clone()).await;
        assert_eq!(obstacles(&explained), []);
        assert_eq!(explained.session_for.unwrap().seconds, 900);
        assert_eq!(explained.subject, "repo octo/app run 7");
        let matched = explained.rules.iter().all(|rule| rule.matched);
        assert!(matched && explained.rules.len() == 3);
    }
    assert_eq!(live(&server, &uid).await, 0);
    let session = server.exchange(&claims, &uid).await.unwrap();
    server.clock.advance(std::time::Duration::from_mins(1));
    let explained = explain(&server, &uid, jwt.clone()).await;
    assert_eq!(obstacles(&explained), [], "a repetition is answered");
    assert_eq!(explained.session_for.unwrap().seconds, 840);
    server.exchange(&claims, &uid).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "NOT_RECOGNIZED");
    let session = server.exchange(&claims, &uid).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "");
    let explained = explain(&server, &uid, jwt).await;
    assert_eq!(obstacles(&explained), [Obstacle::JwtReplayed]);

    let other = sign(json!({ "environment": "staging", "repository_owner_id": null }));
    let explained = explain(&server, &uid, other).await;
    assert_eq!(obstacles(&explained), [Obstacle::RuleNotMatched]);
    let rules = explained.rules.into_iter();
    let rules: Vec<_> = rules
        .into_iter()
        .map(|result| (result.rule.unwrap(), result.presented, result.matched))
        .collect();
    let expected = federation().rules.into_iter();
    let presented = [(Some("1"), true), (None, false), (Some("staging"), false)];
    let expected: Vec<_> = expected
        .zip(presented)
        .map(|(rule, (presented, matched))| (rule, presented.map(str::to_owned), matched))
        .collect();
    assert_eq!(rules, expected);

    let event = sign(json!({ "event_name": "pull_request" }));
    let explained = explain(&server, &uid, event).await;
    assert_eq!(obstacles(&explained), [Obstacle::EventRefused]);
    let other = server.issuer.sign(&pod(now));
    let explained = explain(&server, &uid, other).await;
    assert_eq!(obstacles(&explained), [Obstacle::OtherIssuer]);
    assert!(explained.rules.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_claim_of_a_jwt_that_does_not_verify_is_shown() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let foreign = crate::support::TestIssuer::new().sign(&job(now, json!({})));
    for (jwt, obstacle) in [
        (foreign, Obstacle::JwtInvalid),
        ("junk".to_owned(), Obstacle::JwtInvalid),
        (server.issuer.user("owner", now), Obstacle::JwtInvalid),
    ] {
        let explained = explain(&server, &uid, jwt).await;
        assert_eq!(obstacles(&explained), [obstacle]);
        assert_eq!((explained.rules.len(), explained.subject.as_str()), (0, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_that_is_not_valid_now_is_explained_rule_by_rule_and_not_exchanged() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    for times in [
        json!({ "exp": now - 60, "iat": now - 120 }),
        json!({ "nbf": now + 60, "iat": now + 60, "exp": now + 120 }),
        json!({ "nbf": now + 60 }),
        json!({ "iat": now + 60 }),
    ] {
        let claims = job(now, times);
        let explained = explain(&server, &uid, server.issuer.sign(&claims)).await;
        assert_eq!(obstacles(&explained), [Obstacle::JwtExpired]);
        let matched = explained.rules.iter().filter(|rule| rule.matched);
        assert_eq!(matched.count(), 3);
        assert_eq!(explained.subject, "repo octo/app run 7");
        let status = server.exchange(&claims, &uid).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_is_explained_by_the_replay_rule_of_its_own_issuer() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let other = server.federated_as("pods", pods()).await;
    let now = server.clock.seconds();
    let nameless = job(now, json!({ "jti": null }));
    let jwt = server.issuer.sign(&nameless);
    let explained = explain(&server, &uid, jwt).await;
    assert_eq!(obstacles(&explained), [Obstacle::JwtInvalid]);
    assert!(server.exchange(&nameless, &uid).await.is_err());
    // The JWT's issuer allows only one exchange per JWT, and the token trusts another issuer.
    let claims = job(now, json!({}));
    server.exchange(&claims, &uid).await.unwrap();
    let explained = explain(&server, &other, server.issuer.sign(&claims)).await;
    let expected = [Obstacle::OtherIssuer, Obstacle::JwtReplayed];
    assert_eq!(obstacles(&explained), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_is_about_a_federated_token_and_has_a_rate_of_its_own() {
    let server = TestServer::start().await;
    let uid = server.issue("deploy").await.token.unwrap().token_uid;
    let request = v1::ExplainExchangeRequest {
        stack_api_key: server.stack.clone(),
        token_uid: uid,
        subject_token: "x".into(),
    };
    let mut owner = server.owner().await;
    let status = owner
        .tokens
        .explain_exchange(request.clone())
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["token_uid"]);
    let mut limited = false;
    for _ in 0..30 {
        let status = owner
            .tokens
            .explain_exchange(request.clone())
            .await
            .unwrap_err();
        limited |= refusal(&status) == (Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    }
    assert!(limited);
    server.issue("another").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuers_are_listed_with_an_example_that_works() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let request = v1::ListFederationIssuersRequest {
        stack_api_key: server.stack.clone(),
    };
    let listed = owner.tokens.list_federation_issuers(request).await.unwrap();
    let issuers = listed.into_inner().issuers;
    let names: Vec<_> = issuers
        .iter()
        .map(|issuer| {
            (
                issuer.name.as_str(),
                issuer.provider.as_str(),
                issuer.single_use,
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("ci", "github-actions", true),
            ("pods", "kubernetes", false)
        ]
    );
    for issuer in issuers {
        assert!(!issuer.required_claims.is_empty() && issuer.audience.starts_with("stacktoken-"));
        server
            .federated_as(&issuer.name, issuer.example.unwrap())
            .await;
    }
}
