//! Tests that a stack has at most ten live tokens (R6).

use std::time::Duration;

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{
    TestServer, at,
    clients::details,
    clock::START,
    issue_request,
    requests::{outcome, refused, rename_request},
};

const REACHED: &str = "ResourceExhausted TOKEN_LIMIT_REACHED";

async fn refused_issue(server: &TestServer) -> Status {
    let request = issue_request(&server.stack, "one too many");
    let issued = server.owner().await.tokens.issue(request).await;
    let status = issued.unwrap_err();
    let expected = (Code::ResourceExhausted, "TOKEN_LIMIT_REACHED".to_owned());
    assert_eq!(refused(&status), expected);
    status
}

fn used_and_max(status: &Status) -> (String, String) {
    let details = details(status);
    let metadata = &details.error_info().unwrap().metadata;
    (metadata["used"].clone(), metadata["max"].clone())
}

async fn fill(server: &TestServer, count: usize) -> Vec<crate::support::requests::Issued> {
    let mut issued = Vec::new();
    for n in 0..count {
        issued.push(server.token(&format!("token {n}")).await);
    }
    issued
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_eleventh_live_token_is_refused_and_none_is_evicted() {
    let server = TestServer::start().await;
    let issued = fill(&server, 10).await;
    let status = refused_issue(&server).await;
    assert_eq!(used_and_max(&status), ("10".into(), "10".into()));
    assert_eq!(server.limit().await, (10, 10));
    for token in issued {
        assert_eq!(server.verdict(&token.secret).await, "OK");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_names_three_candidates_that_end_soonest_or_are_the_oldest() {
    let server = TestServer::start().await;
    let late = server.token_until("late", at(START + 7200)).await;
    let soon = server.token_until("soon", at(START + 3600)).await;
    server.clock.advance(Duration::from_secs(1));
    let oldest = server.token("oldest").await;
    server.clock.advance(Duration::from_secs(1));
    fill(&server, 7).await;
    let status = refused_issue(&server).await;
    let quota = details(&status).quota_failure().unwrap().violations.clone();
    let subjects: Vec<_> = quota.iter().map(|named| named.subject.clone()).collect();
    let expected = [&soon, &late, &oldest].map(|token| format!("token:{}", token.uid));
    assert_eq!(subjects[1..], expected);
    let words: Vec<_> = quota
        .iter()
        .map(|named| named.description.clone())
        .collect();
    assert!(words[0].contains("10"), "{words:?}");
    let never = "never used since it was issued at 2026-11-24T12:00:0";
    let expected = [
        "a candidate to revoke: soon (expires soonest, at 2026-11-24T13:00:00Z)".to_owned(),
        format!("a candidate to revoke: late ({never}0Z)"),
        format!("a candidate to revoke: oldest ({never}1Z)"),
    ];
    assert_eq!(words[1..], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_says_of_each_candidate_why_it_may_not_be_missed() {
    let server = TestServer::start().await;
    let issued = fill(&server, 9).await;
    let ends = server.token_until("ends", at(START + 3600)).await;
    // Every token except token 8 is used: token 7 first, `ends` last.
    for token in issued[..8].iter().rev().chain([&ends]) {
        server.clock.advance(Duration::from_secs(1));
        server.verdict(&token.secret).await;
    }
    let status = refused_issue(&server).await;
    let quota = details(&status).quota_failure().unwrap().violations.clone();
    let words: Vec<_> = quota[1..]
        .iter()
        .map(|named| named.description.as_str())
        .collect();
    let expected = [
        "a candidate to revoke: ends (expires soonest, at 2026-11-24T13:00:00Z)",
        "a candidate to revoke: token 8 (never used since it was issued at 2026-11-24T12:00:00Z)",
        "a candidate to revoke: token 7 (idle longest, last used at 2026-11-24T12:00:01Z)",
    ];
    assert_eq!(words, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_and_expired_tokens_free_their_slots() {
    let server = TestServer::start().await;
    let brief = server.token_until("brief", at(START + 60)).await;
    let others = fill(&server, 9).await;
    refused_issue(&server).await;
    server.revoke(&others[0].uid).await;
    assert_eq!(server.limit().await, (9, 10));
    server.token("after a revoke").await;
    refused_issue(&server).await;
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(server.limit().await, (9, 10));
    server.token("after an expiry").await;
    refused_issue(&server).await;
    assert_eq!(server.verdict(&brief.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_raises_and_lowers_the_limit_of_one_stack() {
    let server = TestServer::start().await;
    let issued = fill(&server, 10).await;
    server.set_limit(12).await;
    server.token("eleventh").await;
    server.token("twelfth").await;
    let status = refused_issue(&server).await;
    assert_eq!(used_and_max(&status), ("12".into(), "12".into()));
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    for n in 0..10 {
        let request = issue_request(&other, &format!("token {n}"));
        owner.tokens.issue(request).await.unwrap();
    }
    let eleventh = owner.tokens.issue(issue_request(&other, "eleventh")).await;
    assert_eq!(
        outcome(&eleventh),
        REACHED,
        "the limit of the other stack is unchanged"
    );
    server.set_limit(3).await;
    assert_eq!(server.limit().await, (12, 3));
    let status = refused_issue(&server).await;
    assert_eq!(used_and_max(&status), ("12".into(), "3".into()));
    for token in &issued {
        assert_eq!(
            server.verdict(&token.secret).await,
            "OK",
            "a lower limit revokes no token"
        );
    }
    let renamed = rename_request(&server.stack, &issued[0].uid, "still mine");
    assert_eq!(outcome(&owner.tokens.update(renamed).await), "OK");
    for token in &issued {
        server.revoke(&token.uid).await;
    }
    server.token("third").await;
    refused_issue(&server).await;
    server.set_limit(0).await;
    let status = refused_issue(&server).await;
    assert_eq!(used_and_max(&status), ("3".into(), "0".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_issues_at_once_exactly_ten_succeed_in_every_round() {
    let server = TestServer::start().await;
    let owner = server.owner().await;
    for round in 0..50 {
        let stack = server.register(&format!("Round {round}")).await;
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..64 {
            let mut owner = owner.clone();
            let request = issue_request(&stack, &format!("token {n}"));
            calls.spawn(async move { outcome(&owner.tokens.issue(request).await) });
        }
        let outcomes = calls.join_all().await;
        let of = |kind: &str| outcomes.iter().filter(|outcome| *outcome == kind).count();
        assert_eq!(
            (of("OK"), of(REACHED)),
            (10, 54),
            "round {round}: {outcomes:?}"
        );
        let request = v1::ListRequest {
            states: vec![v1::TokenState::Active.into()],
            ..crate::support::requests::list_request(&stack)
        };
        let listed = owner
            .clone()
            .tokens
            .list(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((listed.tokens.len(), listed.limit.unwrap().used), (10, 10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_issues_of_one_name_at_once_exactly_one_succeeds() {
    let server = TestServer::start().await;
    let owner = server.owner().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut owner = owner.clone();
        let request = issue_request(&server.stack, "the one");
        calls.spawn(async move { outcome(&owner.tokens.issue(request).await) });
    }
    let mut outcomes = calls.join_all().await;
    outcomes.sort_unstable();
    let taken = outcomes
        .iter()
        .filter(|told| *told == "AlreadyExists NAME_TAKEN");
    assert_eq!(
        (taken.count(), outcomes.last().unwrap().as_str()),
        (31, "OK")
    );
}
