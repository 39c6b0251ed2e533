//! Tests that `ReportLeaked` gives every report the same response and revokes a live token.

use std::time::Duration;

use prost::Message as _;
use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::support::{
    TestServer, at,
    clients::fields,
    clock::START,
    methods,
    raw::{self, Metadata, TestCaller, call},
    requests::{overlap_for, refused},
};

const PATH: &str = "/stacktoken.v1.LeakService/ReportLeaked";
const URL: &str = "https://git.test/ann/site/blob/main/.env#L3";

fn request(secret: &str, url: &str) -> v1::ReportLeakedRequest {
    v1::ReportLeakedRequest {
        secret: secret.into(),
        url: url.into(),
    }
}

async fn report(server: &TestServer, secret: &str) {
    let mut service = server.service_without_role().await;
    let answer = service.leaks.report_leaked(request(secret, URL)).await;
    assert!(answer.unwrap().into_inner().accepted);
}

/// Returns the token, outcome and generation of each report in the audit, newest first.
async fn reported(server: &TestServer) -> Vec<(String, String, String)> {
    let events = server.audit().await.into_iter();
    let ours = events.filter(|event| event.method == methods::REPORT_LEAKED);
    ours.map(|event| {
        assert_eq!(event.details["url"], URL);
        assert_eq!(event.actor.unwrap().subject, "mailer");
        let told = |name: &str| event.details[name].clone();
        (event.token_uid.clone(), told("outcome"), told("generation"))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_token_is_dead_in_the_very_next_verdict() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    assert_eq!(server.verdict(&token.secret).await, "OK");
    report(&server, &format!(" {}\n", token.secret)).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
    let seen = server.see(&token.uid).await;
    assert_eq!(seen.revoke_reason, format!("reported as leaked at {URL}"));
    assert_eq!(seen.revoked_by.unwrap().subject, "mailer");
    // Rows with the same instant have no defined order, so the clock advances between the reports.
    server.clock.advance(Duration::from_secs(1));
    report(&server, &token.secret).await;
    let row = |outcome: &str| (token.uid.clone(), outcome.to_owned(), "1".to_owned());
    assert_eq!(reported(&server).await, [row("DEAD"), row("REVOKED")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_live_secret_kills_the_token_and_an_ended_one_does_not() {
    let server = TestServer::start().await;
    for at in 0..2 {
        let token = server.token(&format!("token {at}")).await;
        assert_eq!(server.verdict(&token.secret).await, "OK");
        let newer = server.rotate(&token.uid, overlap_for(60)).await.secret;
        assert_eq!(server.verdict(&newer).await, "OK");
        report(&server, [&token.secret, &newer][at]).await;
        for secret in [&token.secret, &newer] {
            assert_eq!(server.verdict(secret).await, "REVOKED");
        }
    }
    let token = server.token("kept").await;
    let newer = server.rotate(&token.uid, overlap_for(60)).await.secret;
    server.clock.advance(Duration::from_secs(60));
    report(&server, &token.secret).await;
    assert_eq!(server.verdict(&newer).await, "OK");
    // The end of the overlap stays final even if the clock of another host is behind.
    server.clock.set_back(Duration::from_secs(30));
    assert_eq!(server.verdict(&token.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&newer).await, "OK");
    let told = reported(&server).await;
    assert_eq!(told[0], (token.uid, "SUPERSEDED".into(), "1".into()));
    assert_eq!(told.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leak_report_gets_the_same_bytes() {
    let server = TestServer::start().await;
    let live = server.token("live").await.secret;
    let dead = server.token("dead").await;
    server.revoke(&dead.uid).await;
    let expired = server.token_until("short", at(START + 1)).await.secret;
    let former = server.token("rotated").await;
    server.rotate(&former.uid, overlap_for(0)).await;
    server.clock.advance(Duration::from_secs(1));
    let removed = TestServer::start().await;
    let gone = removed.token("gone").await.secret;
    removed.remove().await;
    let long = "x".repeat(60_000);
    let unknown = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    let texts = [
        live.as_str(),
        &live,
        &dead.secret,
        &expired,
        &former.secret,
        unknown,
        &live[..50],
        "",
        "\u{7}",
        &long,
    ];
    let mut answers = Vec::new();
    let channel = server.channel().await;
    for text in texts {
        for part in [
            TestCaller::Operator,
            TestCaller::Introspector,
            TestCaller::ServiceWithoutRole,
        ] {
            let sent = Metadata::bearer(&part.jwt(&server));
            let bytes = request(text, "").encode_to_vec();
            answers.push(call(&channel, PATH, sent, bytes).await.unwrap());
        }
    }
    let sent = Metadata::bearer(&TestCaller::Operator.jwt(&removed));
    let bytes = request(&gone, "").encode_to_vec();
    answers.push(
        call(&removed.channel().await, PATH, sent, bytes)
            .await
            .unwrap(),
    );
    answers.dedup();
    assert_eq!(
        answers,
        [v1::ReportLeakedResponse { accepted: true }.encode_to_vec()]
    );
    let told = removed.metrics().await;
    let line = "stacktoken_leak_reports_total{outcome=\"DEAD\"} 1";
    assert!(told.contains(line), "{told}");
    let metrics = server.metrics().await;
    for (outcome, count) in [
        ("REVOKED", 1),
        ("DEAD", 11),
        ("SUPERSEDED", 3),
        ("UNKNOWN", 15),
    ] {
        let line = format!("stacktoken_leak_reports_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_suspended_stack_dies_too() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.suspend().await;
    report(&server, &token.secret).await;
    server.resume().await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_may_not_report_and_nothing_happens() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let channel = server.channel().await;
    for part in [
        TestCaller::Owner,
        TestCaller::Admin,
        TestCaller::Developer,
        TestCaller::Stranger,
    ] {
        let sent = Metadata::bearer(&part.jwt(&server));
        let bytes = request(&token.secret, "").encode_to_vec();
        let answered = call(&channel, PATH, sent, bytes).await;
        let wanted = (Code::PermissionDenied, "ROLE_REQUIRED".to_owned());
        assert_eq!(raw::outcome(&answered), wanted);
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_address_is_named_whatever_the_secret_and_kills_nothing() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut operator = server.operator().await;
    for secret in [token.secret.as_str(), "junk"] {
        let holding = format!("https://a.test/{}", token.secret);
        for url in ["a.test", "https://ann:pw@a.test", holding.as_str()] {
            let answered = operator.leaks.report_leaked(request(secret, url)).await;
            assert_eq!(fields(&answered.unwrap_err()), ["url"]);
        }
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_count_as_changes_of_their_caller() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 10.try_into().unwrap();
    })
    .await;
    let mut service = server.service_without_role().await;
    for _ in 0..10 {
        service
            .leaks
            .report_leaked(request("junk", ""))
            .await
            .unwrap();
    }
    let refusal = service.leaks.report_leaked(request("junk", "")).await;
    let wanted = (Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    assert_eq!(refused(&refusal.unwrap_err()), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_never_accepted() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let outside = server.outside().await;
    outside.corrupt().await;
    let mut operator = server.operator().await;
    let asked = request(&token.secret, "");
    let refusal = operator
        .leaks
        .report_leaked(asked.clone())
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
    outside.restore().await;
    operator.leaks.report_leaked(asked).await.unwrap();
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
}
