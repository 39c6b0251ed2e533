//! Tests the deadlines of calls. They send raw frames, because a client library would report the
//! deadline itself before the server does.

use std::time::{Duration, Instant};

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{
    TestServer,
    clients::reason,
    database::eventually,
    frames::{self, Answer},
    introspect_request, issue_request,
};

/// Returns the status from the response headers, because an error has no response message.
fn outcome(answer: &Answer) -> (Code, String) {
    let status = Status::from_header_map(&answer.headers).expect("an error");
    (status.code(), reason(&status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_timeout_is_kept_where_it_is_shorter_than_the_deadline() {
    let server = TestServer::start_with(|tuning| tuning.deadline = Duration::from_secs(30)).await;
    let token = server.token("unused").await;
    let outside = server.outside().await;
    // The lock blocks every call that writes, including the first use of a token.
    outside.run("BEGIN IMMEDIATE").await;
    let now = server.clock.seconds();
    let owner = format!("Bearer {}", server.issuer.user("owner", now));
    let service = format!("Bearer {}", server.issuer.service("content-api", now));
    let issue = issue_request(&server.stack, "late");
    let question = introspect_request(&server.stack, &token.secret, &[]);
    for timeout in ["300m", "300000u"] {
        let began = Instant::now();
        let answers = [
            frames::call_alone(
                &server.address,
                &[("authorization", &owner), ("grpc-timeout", timeout)],
                "/stacktoken.v1.TokenService/Issue",
                &issue,
            )
            .await,
            frames::call_alone(
                &server.address,
                &[("authorization", &service), ("grpc-timeout", timeout)],
                "/stacktoken.v1.IntrospectionService/Introspect",
                &question,
            )
            .await,
        ];
        let took = began.elapsed();
        let over = (Code::DeadlineExceeded, "DEADLINE".to_owned());
        assert_eq!(answers.each_ref().map(outcome), [over.clone(), over]);
        // Without the caller's timeout, SQLite would wait five seconds for each lock.
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    outside.run("COMMIT").await;
    // The server continues a call that its caller has given up, and writes everything: the token,
    // its secret, its audit row and its row in the change log.
    eventually("the first issue is done", async || {
        let issued = "SELECT COUNT(*) FROM tokens WHERE name = 'late'";
        (outside.number(issued).await == 1).then_some(())
    })
    .await;
    for rows in [
        "token_secrets WHERE token_uid = (SELECT uid FROM tokens WHERE name = 'late')",
        "changes WHERE token_uid = (SELECT uid FROM tokens WHERE name = 'late')",
        "audit_events WHERE action = 'token_issue' AND refusal_reason IS NULL \
         AND state_after LIKE '%late%'",
    ] {
        let count = outside
            .number(&format!("SELECT COUNT(*) FROM {rows}"))
            .await;
        assert_eq!(count, 1, "{rows}");
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_timeout_of_the_caller_does_not_stretch_the_deadline() {
    let set = Duration::from_millis(300);
    let server = TestServer::start_with(|tuning| tuning.deadline = set).await;
    let outside = server.outside().await;
    outside.run("BEGIN IMMEDIATE").await;
    let owner = server.issuer.user("owner", server.clock.seconds());
    let owner = format!("Bearer {owner}");
    let issue: v1::IssueRequest = issue_request(&server.stack, "late");
    let began = Instant::now();
    let answer = frames::call_alone(
        &server.address,
        &[("authorization", &owner), ("grpc-timeout", "1H")],
        "/stacktoken.v1.TokenService/Issue",
        &issue,
    )
    .await;
    let took = began.elapsed();
    outside.run("COMMIT").await;
    assert_eq!(
        outcome(&answer),
        (Code::DeadlineExceeded, "DEADLINE".to_owned())
    );
    assert!(set <= took && took < Duration::from_secs(3), "{took:?}");
}
