//! Tests malformed requests. The error names the field, and for rules also what the provider
//! requires.

use serde_json::json;
use stacktoken::grpc::pb::v1::{self, claim_rule::Match};
use tonic::Code;

use crate::support::{
    TestServer,
    clients::fields,
    federated::{exchange_request, federated_request, federation, job, pods, rule},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_admit_too_much_are_refused_with_the_field() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let without = |path: &str| {
        let mut federation = federation();
        federation.rules.retain(|rule| rule.path != [path]);
        federation
    };
    let with = |rule: v1::ClaimRule| {
        let mut federation = federation();
        federation.rules.push(rule);
        federation
    };
    let prefix = |path: &str, text: &str| v1::ClaimRule {
        r#match: Some(Match::Prefix(text.into())),
        ..rule(&[path], "")
    };
    let lasting = |seconds| v1::Federation {
        session_for: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..federation()
    };
    let named = |issuer: &str| v1::Federation {
        issuer: issuer.into(),
        ..federation()
    };
    for (federation, field, hint) in [
        (named(""), "federation.issuer", "required"),
        (
            named("nobody"),
            "federation.issuer",
            "ListFederationIssuers",
        ),
        (named("pods"), "federation.rules", "serviceaccount"),
        (
            without("repository_id"),
            "federation.rules",
            "repository_id",
        ),
        (
            without("repository_owner_id"),
            "federation.rules",
            "repository_owner_id",
        ),
        (without("environment"), "federation.rules", "environment"),
        (with(prefix("sub", "")), "federation.rules[3].prefix", ""),
        (
            with(prefix("sub", "repo")),
            "federation.rules[3].prefix",
            "must end in",
        ),
        (with(rule(&[], "x")), "federation.rules[3].path", ""),
        (
            with(v1::ClaimRule {
                r#match: None,
                ..rule(&["sub"], "")
            }),
            "federation.rules[3]",
            "equals or prefix",
        ),
        (lasting(59), "federation.session_for", "1 minute"),
        (lasting(3601), "federation.session_for", "1 hour"),
        (lasting(-1), "federation.session_for", "negative"),
    ] {
        let request = v1::IssueRequest {
            federation: Some(federation.clone()),
            ..federated_request(&server.stack, "ci")
        };
        let status = owner.tokens.issue(request).await.unwrap_err();
        let found = fields(&status);
        assert!(
            found.iter().any(|found| found == field),
            "{found:?} {field} {status:?}"
        );
        assert!(
            status.message().contains(hint),
            "{hint}: {}",
            status.message()
        );
    }
    assert_eq!(server.limit().await.0, 0);
    server.federated_as("pods", pods()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_a_wrong_shape_names_its_fields() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = v1::ExchangeRequest {
        session_for: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        narrow: Some(v1::Permissions::default()),
        ..exchange_request("blt", "x")
    };
    let status = workload.exchange.exchange(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let expected = ["stack_api_key", "token_uid", "session_for", "narrow.access"];
    assert_eq!(fields(&status), expected);
    // The refused requests have not used the assertion up.
    let request = exchange_request(&server.stack, "");
    workload.exchange.exchange(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_does_not_print_names_no_sessions() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let mut owner = server.owner().await;
    for subject in ["repo\0", "a\nb", "\u{202e}"] {
        let request = super::end(&server, &uid, subject);
        let status = owner.tokens.end_sessions(request).await.unwrap_err();
        assert_eq!(fields(&status), ["subject"], "{subject:?}");
    }
}
