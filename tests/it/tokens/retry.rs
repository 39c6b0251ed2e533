//! Tests requests that are repeated because the response was lost. The result is always one token
//! with one live secret.

use std::time::Duration;

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{
    TestServer, after, at,
    clients::details,
    clock::START,
    issue_request, methods, now,
    requests::{
        Issued, UNTIL_FIRST_USE, end_overlap_request, outcome, overlap_for, refused,
        rename_request, revoke_request, rotate_request, set_expiry_request,
    },
};

const MINUTES: Duration = Duration::from_secs(60);

fn request(server: &TestServer, id: &str) -> v1::IssueRequest {
    v1::IssueRequest {
        request_id: id.into(),
        ..issue_request(&server.stack, "deploy")
    }
}

async fn issue(server: &TestServer, request: v1::IssueRequest) -> Result<Issued, Status> {
    let issued = server.owner().await.tokens.issue(request).await;
    issued.map(|answer| answer.into_inner().into())
}

/// Asserts that the call fails with REQUEST_ID_REUSED and that the error contains the token's id.
fn assert_reused(status: &Status, uid: &str) {
    assert_eq!(
        refused(status),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".into())
    );
    let details = details(status);
    assert_eq!(details.error_info().unwrap().metadata["token_uid"], uid);
}

async fn live_secrets(server: &TestServer, uid: &str) -> i64 {
    let uid = uid.replace('-', "").to_uppercase();
    let sql = format!(
        "SELECT COUNT(*) FROM token_secrets \
         WHERE superseded_at IS NULL AND hex(token_uid) = '{uid}'"
    );
    server.outside().await.number(&sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_repeated_gives_the_same_token_a_fresh_secret_and_the_lost_one_dies() {
    let server = TestServer::start().await;
    let lost = issue(&server, request(&server, "once")).await.unwrap();
    server.clock.advance(10 * MINUTES);
    let again = issue(&server, request(&server, "once")).await.unwrap();
    assert_eq!(again.uid, lost.uid);
    assert_ne!(again.secret, lost.secret);
    assert_eq!(server.verdict(&lost.secret).await, "SUPERSEDED");
    let seen = server.see(&again.uid).await;
    assert_eq!((seen.generation, seen.secrets.len()), (2, 1));
    assert_eq!(seen.secrets[0].hint, again.secret[47..]);
    assert_eq!(seen.issued_at.unwrap().seconds, START);
    assert_eq!(server.limit().await.0, 1);
    assert_eq!(live_secrets(&server, &again.uid).await, 1);
    assert_eq!(server.verdict(&again.secret).await, "OK");
    let events = server.audit().await;
    let issues: Vec<_> = events
        .iter()
        .filter(|event| event.method == methods::ISSUE)
        .map(|event| event.details.get("again").map(String::as_str))
        .collect();
    assert_eq!(issues, [Some("true"), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relative_expiry_is_answered_again_as_it_was_first_decided() {
    let server = TestServer::start().await;
    let asked = |seconds| v1::IssueRequest {
        expiry: Some(after(seconds, 0)),
        ..request(&server, "once")
    };
    let first = issue(&server, asked(3600)).await.unwrap();
    server.clock.advance(5 * MINUTES);
    let again = issue(&server, asked(3600)).await.unwrap();
    assert_eq!(again.uid, first.uid);
    let seen = server.see(&again.uid).await;
    assert_eq!(seen.expires_at.unwrap().seconds, START + 3600);
    let other = issue(&server, asked(3601)).await.map(drop).unwrap_err();
    assert_reused(&other, &first.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_is_answered_again_also_at_the_limit() {
    let server = TestServer::start().await;
    let lost = issue(&server, request(&server, "once")).await.unwrap();
    server.set_limit(1).await;
    let again = issue(&server, request(&server, "once")).await.unwrap();
    assert_eq!(again.uid, lost.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_used_up_by_use_change_death_time_and_other_content() {
    let server = TestServer::start().await;
    let (stack, mut owner) = (server.stack.clone(), server.owner().await);
    for what in [
        "used",
        "renamed",
        "redated",
        "revoked",
        "ended",
        "rotated",
        "late",
        "different",
    ] {
        let named = |id: &str| v1::IssueRequest {
            name: what.into(),
            ..request(&server, id)
        };
        let token = issue(&server, named(what)).await.unwrap();
        let mut again = named(what);
        match what {
            "used" => assert_eq!(server.verdict(&token.secret).await, "OK"),
            "renamed" => {
                let renamed = rename_request(&stack, &token.uid, "another");
                owner.tokens.update(renamed).await.unwrap();
            }
            "redated" => {
                let redated = set_expiry_request(&stack, &token.uid, at(START + 9999));
                owner.tokens.set_expiry(redated).await.unwrap();
            }
            "revoked" => {
                let revoked = revoke_request(&stack, &token.uid, "");
                owner.tokens.revoke(revoked).await.unwrap();
            }
            "ended" => {
                let ended = set_expiry_request(&stack, &token.uid, now());
                owner.tokens.set_expiry(ended).await.unwrap();
            }
            "rotated" => drop(server.rotate(&token.uid, overlap_for(60)).await),
            "late" => server
                .clock
                .advance(10 * MINUTES + Duration::from_micros(1)),
            _ => again.description = "something else".into(),
        }
        let before = server.see(&token.uid).await;
        for _ in 0..2 {
            let status = issue(&server, again.clone()).await.err().expect(what);
            assert_reused(&status, &token.uid);
        }
        assert_eq!(
            server.see(&token.uid).await,
            before,
            "{what}: nothing changed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_reached_meanwhile_is_reused_on_a_repetition_and_invalid_otherwise() {
    let server = TestServer::start().await;
    let brief = |id: &str| v1::IssueRequest {
        expiry: Some(at(START + 60)),
        ..request(&server, id)
    };
    let token = issue(&server, brief("once")).await.unwrap();
    server.clock.advance(MINUTES);
    let status = issue(&server, brief("once")).await.err().unwrap();
    assert_reused(&status, &token.uid);
    let status = issue(&server, brief("twice")).await.err().unwrap();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    let fields: Vec<_> = details(&status)
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|fault| fault.field.clone())
        .collect();
    assert_eq!(fields, ["expiry.at"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_of_other_callers_stacks_and_rpcs_are_others() {
    let server = TestServer::start().await;
    let token = issue(&server, request(&server, "once")).await.unwrap();
    let mut admin = server.admin().await;
    let taken = outcome(&admin.tokens.issue(request(&server, "once")).await);
    assert_eq!(
        taken, "AlreadyExists NAME_TAKEN",
        "request ids of another caller are separate"
    );
    let elsewhere = v1::IssueRequest {
        stack_api_key: server.register("Other").await,
        ..request(&server, "once")
    };
    assert_ne!(issue(&server, elsewhere).await.unwrap().uid, token.uid);
    let rotate = v1::RotateRequest {
        request_id: "once".into(),
        ..rotate_request(&server.stack, &token.uid, UNTIL_FIRST_USE)
    };
    let mut owner = server.owner().await;
    assert_eq!(outcome(&owner.tokens.rotate(rotate).await), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_repeated_replaces_the_lost_secret_and_keeps_the_overlap() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let rotate = || v1::RotateRequest {
        request_id: "once".into(),
        ..rotate_request(&server.stack, &issued.uid, overlap_for(3600))
    };
    let mut owner = server.owner().await;
    let lost = owner.tokens.rotate(rotate()).await.unwrap().into_inner();
    server.clock.advance(MINUTES);
    let again = owner.tokens.rotate(rotate()).await.unwrap().into_inner();
    assert_eq!(again.overlap_ends_at, lost.overlap_ends_at);
    assert_eq!(again.token.unwrap().generation, 3);
    assert_eq!(server.verdict(&lost.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    assert_eq!(live_secrets(&server, &issued.uid).await, 2);
    server.suspend().await;
    let told = outcome(&owner.tokens.rotate(rotate()).await);
    assert_eq!(told, "FailedPrecondition STACK_SUSPENDED");
    server.resume().await;
    assert_eq!(server.verdict(&again.secret).await, "OK");
    let status = owner.tokens.rotate(rotate()).await.unwrap_err();
    assert_reused(&status, &issued.uid);
    server.revoke(&issued.uid).await;
    let status = owner.tokens.rotate(rotate()).await.unwrap_err();
    assert_reused(&status, &issued.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_repeated_after_its_overlap_was_ended_says_when_that_was() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let rotate = || v1::RotateRequest {
        request_id: "once".into(),
        ..rotate_request(&server.stack, &issued.uid, overlap_for(3600))
    };
    let mut owner = server.owner().await;
    let lost = owner.tokens.rotate(rotate()).await.unwrap().into_inner();
    server.clock.advance(MINUTES);
    let end = end_overlap_request(&server.stack, &issued.uid);
    owner.tokens.end_overlap(end).await.unwrap();
    server.clock.advance(MINUTES);
    let again = owner.tokens.rotate(rotate()).await.unwrap().into_inner();
    assert_eq!(again.overlap_ends_at.unwrap().seconds, START + 60);
    assert_eq!(again.token.unwrap().secrets.len(), 1);
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&lost.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&again.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_has_a_form() {
    let server = TestServer::start().await;
    for id in ["a b", "é", &"x".repeat(65), "a/b", "\n"] {
        let status = issue(&server, request(&server, id)).await.err().unwrap();
        assert_eq!(
            refused(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into())
        );
        assert!(
            status.message().contains("request_id"),
            "{}",
            status.message()
        );
    }
    let longest = "x".repeat(64);
    assert!(issue(&server, request(&server, &longest)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_repetitions_at_once_leave_one_token_and_one_live_secret() {
    let server = TestServer::start().await;
    let owner = server.owner().await;
    for round in 0..5 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut owner = owner.clone();
            let request = v1::IssueRequest {
                name: format!("token {round}"),
                ..request(&server, &format!("round-{round}"))
            };
            calls.spawn(async move {
                let issued = owner.tokens.issue(request).await.unwrap();
                Issued::from(issued.into_inner())
            });
        }
        let issued = calls.join_all().await;
        assert!(issued.iter().all(|token| token.uid == issued[0].uid));
        assert_eq!(live_secrets(&server, &issued[0].uid).await, 1);
        assert_eq!(server.limit().await.0, round + 1);
        let mut verdicts = Vec::new();
        for token in &issued {
            verdicts.push(server.verdict(&token.secret).await);
        }
        let live = verdicts.iter().filter(|verdict| *verdict == "OK").count();
        assert_eq!(live, 1, "{verdicts:?}");
    }
}
