//! Tests that a token has two live secrets during a rotation, that both are visible, and that the
//! former one can be ended early.

use std::time::Duration;

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, at,
    clients::fields,
    clock::START,
    methods, now,
    requests::{
        UNTIL_FIRST_USE, end_overlap_request, list_request, outcome, overlap_for, rotate_request,
        until_first_use_at_most,
    },
};

const DAY: i64 = 86_400;

fn instant(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn generations(token: &v1::Token) -> Vec<u32> {
    let secrets = token.secrets.iter();
    secrets.map(|secret| secret.generation).collect()
}

/// Returns the token as `List` shows it.
async fn listed(server: &TestServer, uid: &str) -> v1::Token {
    let request = list_request(&server.stack);
    let listed = server.owner().await.tokens.list(request).await.unwrap();
    let tokens = listed.into_inner().tokens;
    let found = tokens.into_iter().find(|token| token.token_uid == uid);
    found.unwrap()
}

async fn end(server: &TestServer, uid: &str) -> v1::EndOverlapResponse {
    let request = end_overlap_request(&server.stack, uid);
    let ended = server.owner().await.tokens.end_overlap(request).await;
    ended.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_are_seen_with_their_hints_uses_and_the_end_of_the_former_one() {
    let server = TestServer::start().await;
    let other = server.token("other").await;
    let issued = server.token("deploy").await;
    server.clock.advance(Duration::from_secs(5));
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    server.clock.advance(Duration::from_secs(5));
    let rotated = server.rotate(&issued.uid, overlap_for(3600)).await;
    let former = v1::TokenSecret {
        generation: 1,
        hint: issued.secret[47..].into(),
        created_at: instant(START),
        first_used_at: instant(START + 5),
        ends_at: instant(START + 3610),
    };
    let mut newest = v1::TokenSecret {
        generation: 2,
        hint: rotated.secret[47..].into(),
        created_at: instant(START + 10),
        first_used_at: None,
        ends_at: None,
    };
    let expected = [newest.clone(), former.clone()];
    assert_eq!(rotated.token.unwrap().secrets, expected);
    assert_eq!(server.see(&issued.uid).await.secrets, expected);
    assert_eq!(listed(&server, &issued.uid).await.secrets, expected);
    assert_eq!(generations(&listed(&server, &other.uid).await), [1]);
    server.clock.advance(Duration::from_secs(10));
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    newest.first_used_at = instant(START + 20);
    let used = [newest.clone(), former];
    assert_eq!(server.see(&issued.uid).await.secrets, used);
    server.clock.advance(Duration::from_secs(3590));
    assert_eq!(server.see(&issued.uid).await.secrets, [newest.clone()]);
    assert_eq!(listed(&server, &issued.uid).await.secrets, [newest]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_token_has_no_live_secret() {
    let server = TestServer::start().await;
    for (name, revoked) in [("revoked", true), ("expired", false)] {
        let issued = server.token(name).await;
        server.rotate(&issued.uid, overlap_for(3600)).await;
        assert_eq!(generations(&server.see(&issued.uid).await), [2, 1]);
        if revoked {
            server.revoke(&issued.uid).await;
        } else {
            server.set_expiry(&issued.uid, now()).await;
        }
        assert_eq!(server.see(&issued.uid).await.secrets, []);
        assert_eq!(listed(&server, &issued.uid).await.secrets, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_until_first_use_ends_after_at_most_the_chosen_time() {
    let server = TestServer::start().await;
    let used = server.token("used").await;
    let rotated = server.rotate(&used.uid, until_first_use_at_most(60)).await;
    assert_eq!(rotated.overlap_ends_at, instant(START + 60));
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    assert_eq!(server.verdict(&used.secret).await, "SUPERSEDED");
    assert_eq!(generations(&server.see(&used.uid).await), [2]);

    let unused = server.token("unused").await;
    let rotated = server
        .rotate(&unused.uid, until_first_use_at_most(60))
        .await;
    server.clock.advance(Duration::from_secs(59));
    assert_eq!(server.verdict(&unused.secret).await, "OK");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.verdict(&unused.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&rotated.secret).await, "OK");

    let brief = server.token_until("brief", at(START + 90)).await;
    let rotated = server
        .rotate(&brief.uid, until_first_use_at_most(3600))
        .await;
    assert_eq!(rotated.overlap_ends_at, instant(START + 90));
    let longest = server.token("longest").await;
    let rotated = server
        .rotate(&longest.uid, until_first_use_at_most(30 * DAY))
        .await;
    assert_eq!(rotated.overlap_ends_at, instant(START + 60 + 30 * DAY));
    let none = server.token("none").await;
    server.rotate(&none.uid, until_first_use_at_most(0)).await;
    assert_eq!(server.verdict(&none.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_the_overlap_ends_the_former_secret_at_once_and_makes_no_third() {
    let server = TestServer::start().await;
    for (name, overlap) in [("timed", overlap_for(3600)), ("until", UNTIL_FIRST_USE)] {
        let issued = server.token(name).await;
        assert_eq!(server.verdict(&issued.secret).await, "OK");
        let rotated = server.rotate(&issued.uid, overlap).await;
        assert_eq!(server.verdict(&issued.secret).await, "OK");
        let before = server.see(&issued.uid).await;
        let ended = end(&server, &issued.uid).await;
        let etag = ended.token.as_ref().unwrap().etag.clone();
        assert_ne!(etag, before.etag);
        let expected = v1::Token {
            secrets: before.secrets[..1].to_vec(),
            etag,
            ..before
        };
        assert_eq!(ended.token.as_ref(), Some(&expected), "{name}");
        assert_eq!((expected.generation, expected.secrets.len()), (2, 1));
        assert_eq!(server.see(&issued.uid).await, expected);
        assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
        assert_eq!(server.verdict(&rotated.secret).await, "OK");
        assert_eq!(ended.impact, None);
        assert!(!ended.revision.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_an_overlap_that_there_is_not_is_ok_and_leaves_no_row() {
    let server = TestServer::start().await;
    let sole = server.token("sole").await;
    let over = server.token("over").await;
    server.rotate(&over.uid, overlap_for(60)).await;
    server.clock.advance(Duration::from_secs(60));
    let ended = server.token("ended").await;
    server.rotate(&ended.uid, overlap_for(60)).await;
    let first = end(&server, &ended.uid).await;
    let outside = server.outside().await;
    let before = outside.dump().await;
    for uid in [&sole.uid, &over.uid, &ended.uid, &ended.uid] {
        let seen = server.see(uid).await;
        let again = end(&server, uid).await;
        assert_eq!(again.token, Some(seen));
        assert_eq!(
            again.revision, first.revision,
            "the repetition changed nothing"
        );
    }
    assert_eq!(outside.dump().await, before);
    let rows = server.audit().await;
    let ends = rows
        .iter()
        .filter(|event| event.method == methods::END_OVERLAP);
    let [event] = ends.collect::<Vec<_>>()[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(event.token_uid, ended.uid);
    assert_eq!(event.details["ended"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_can_be_ended_while_the_stack_is_suspended_but_not_of_a_dead_token() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let rotated = server.rotate(&issued.uid, overlap_for(3600)).await;
    let (revoked, brief) = (
        server.token("a").await,
        server.token_until("b", at(START + 5)).await,
    );
    server.revoke(&revoked.uid).await;
    server.clock.advance(Duration::from_secs(5));
    server.suspend().await;
    assert_eq!(
        generations(&end(&server, &issued.uid).await.token.unwrap()),
        [2]
    );
    server.resume().await;
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    let mut told = async |stack: &str, uid: &str| {
        let request = end_overlap_request(stack, uid);
        outcome(&owner.tokens.end_overlap(request).await)
    };
    let stack = &server.stack;
    assert_eq!(
        told(stack, &revoked.uid).await,
        "FailedPrecondition TOKEN_REVOKED"
    );
    assert_eq!(
        told(stack, &brief.uid).await,
        "FailedPrecondition TOKEN_EXPIRED"
    );
    assert_eq!(told(&other, &issued.uid).await, "NotFound TOKEN_NOT_FOUND");
    let nothing = v1::EndOverlapRequest::default();
    let status = owner.tokens.end_overlap(nothing).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "token_uid"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previews_show_the_secrets_as_they_would_be_without_the_hint_of_a_new_one() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let mut owner = server.owner().await;
    let rotate = v1::RotateRequest {
        validate_only: true,
        ..rotate_request(&server.stack, &issued.uid, overlap_for(60))
    };
    let shown = owner.tokens.rotate(rotate).await.unwrap().into_inner();
    let shown = shown.token.unwrap();
    let hints: Vec<_> = shown.secrets.iter().map(|secret| &*secret.hint).collect();
    assert_eq!(generations(&shown), [2, 1]);
    assert_eq!(hints, ["", &issued.secret[47..]]);
    assert_eq!(shown.secrets[1].ends_at, instant(START + 60));
    assert_eq!(generations(&server.see(&issued.uid).await), [1]);

    server.rotate(&issued.uid, overlap_for(60)).await;
    let end = v1::EndOverlapRequest {
        validate_only: true,
        ..end_overlap_request(&server.stack, &issued.uid)
    };
    let shown = owner.tokens.end_overlap(end).await.unwrap().into_inner();
    assert_eq!(generations(&shown.token.unwrap()), [2]);
    assert_eq!(shown.revision, "");
    assert!(shown.impact.is_some());
    assert_eq!(generations(&server.see(&issued.uid).await), [2, 1]);
    assert_eq!(server.verdict(&issued.secret).await, "OK");
}
