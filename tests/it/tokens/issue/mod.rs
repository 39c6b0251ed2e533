mod input;

use std::time::Duration;

use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::support::{
    TestServer, at,
    clients::details,
    clock::START,
    issue_request,
    requests::{outcome, refused},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_works_at_once_and_its_secret_has_the_documented_shape() {
    let server = TestServer::start().await;
    let issued = server.issue("deploy").await;
    let token = issued.token.unwrap();
    assert_eq!(token.state(), v1::TokenState::Active);
    assert_eq!(issued.secret.len(), 51);
    assert!(issued.secret.starts_with("stk1_"));
    let [only] = &token.secrets[..] else {
        panic!("{:?}", token.secrets)
    };
    assert_eq!(only.hint, issued.secret[47..]);
    assert!(!issued.revision.is_empty());
    assert_eq!(server.verdict(&issued.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_taken_by_a_live_token_only() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let again = || issue_request(&server.stack, "deploy");
    let first = server.token("deploy").await;
    assert_eq!(
        outcome(&owner.tokens.issue(again()).await),
        "AlreadyExists NAME_TAKEN"
    );
    let other_case = issue_request(&server.stack, "Deploy");
    assert_eq!(outcome(&owner.tokens.issue(other_case).await), "OK");
    let elsewhere = issue_request(&server.register("Other").await, "deploy");
    assert_eq!(outcome(&owner.tokens.issue(elsewhere).await), "OK");
    server.revoke(&first.uid).await;
    let brief = v1::IssueRequest {
        expiry: Some(at(START + 60)),
        ..again()
    };
    assert_eq!(outcome(&owner.tokens.issue(brief).await), "OK");
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(outcome(&owner.tokens.issue(again()).await), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_stack_issues_nothing() {
    let server = TestServer::start().await;
    server.suspend().await;
    let mut owner = server.owner().await;
    let request = issue_request(&server.stack, "deploy");
    let refusal = owner.tokens.issue(request.clone()).await;
    assert_eq!(outcome(&refusal), "FailedPrecondition STACK_SUSPENDED");
    server.resume().await;
    assert_eq!(outcome(&owner.tokens.issue(request).await), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_changes_from_one_caller_are_refused_until_retry_info_says() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 8.try_into().unwrap();
    })
    .await;
    let mut owner = server.owner().await;
    let mut outcomes = Vec::new();
    let status = loop {
        assert!(
            outcomes.len() < 40,
            "the rate limit never applies: {outcomes:?}"
        );
        let name = format!("token {}", outcomes.len());
        let issued = owner
            .tokens
            .issue(issue_request(&server.stack, &name))
            .await;
        outcomes.push(outcome(&issued));
        if let Err(status) = issued {
            break status;
        }
    };
    assert!(outcomes.len() > 8, "the burst is accepted: {outcomes:?}");
    assert_eq!(
        refused(&status),
        (Code::ResourceExhausted, "RATE_LIMITED".into())
    );
    let wait = details(&status).retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_millis(1001),
        "{wait:?}"
    );
    let read = owner
        .tokens
        .list(crate::support::requests::list_request(&server.stack))
        .await;
    assert_eq!(outcome(&read), "OK", "a read does not count as a change");
    let mut admin = server.admin().await;
    let by_another = admin
        .tokens
        .issue(issue_request(&server.stack, "by admin"))
        .await;
    assert_eq!(
        outcome(&by_another),
        "OK",
        "another caller has its own rate limit"
    );
}
