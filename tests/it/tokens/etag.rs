//! Tests changes with an etag. If two owners have read the same version of a token and both change
//! it, one change succeeds and the other is refused.

use std::time::Duration;

use futures_util::future::join_all;
use stacktoken::grpc::pb::v1::{self, Access};
use tonic::{Code, Status};

use crate::support::{
    TestServer, at,
    clients::{Client, details, fields},
    clock::START,
    database::eventually,
    never, permissions,
    requests::{
        UNTIL_FIRST_USE, end_overlap_request, list_request, outcome, overlap_for, permit_request,
        refused, rename_request, revoke_request, rotate_request, set_expiry_request,
        update_request,
    },
};

const MISMATCH: &str = "Aborted ETAG_MISMATCH";
const SECOND: Duration = Duration::from_secs(1);

async fn etag(server: &TestServer, uid: &str) -> String {
    server.see(uid).await.etag
}

/// Asserts that the call failed with ETAG_MISMATCH, and returns the current etag from the error.
fn current(status: &Status) -> String {
    assert_eq!(refused(status), (Code::Aborted, "ETAG_MISMATCH".into()));
    assert!(
        status.message().contains("get the token again"),
        "{status:?}"
    );
    let details = details(status);
    details.error_info().unwrap().metadata["etag"].clone()
}

fn describe(server: &TestServer, uid: &str, (text, etag): (&str, &str)) -> v1::UpdateRequest {
    let token = v1::Token {
        description: text.into(),
        ..Default::default()
    };
    v1::UpdateRequest {
        etag: etag.into(),
        ..update_request(&server.stack, uid, &["description"], token)
    }
}

/// Makes every kind of change with this etag. Returns the outcomes.
async fn every_change(
    client: &mut Client,
    (stack, uid): (&str, &str),
    (etag, validate_only): (&str, bool),
) -> [String; 5] {
    let etag = || etag.to_owned();
    let update = v1::UpdateRequest {
        etag: etag(),
        validate_only,
        ..rename_request(stack, uid, "renamed")
    };
    let redate = v1::SetExpiryRequest {
        etag: etag(),
        validate_only,
        ..set_expiry_request(stack, uid, at(START + 86_400))
    };
    let rotate = v1::RotateRequest {
        etag: etag(),
        validate_only,
        ..rotate_request(stack, uid, overlap_for(60))
    };
    let end = v1::EndOverlapRequest {
        etag: etag(),
        validate_only,
        ..end_overlap_request(stack, uid)
    };
    let revoke = v1::RevokeRequest {
        etag: etag(),
        validate_only,
        ..revoke_request(stack, uid, "over")
    };
    [
        outcome(&client.tokens.update(update).await),
        outcome(&client.tokens.set_expiry(redate).await),
        outcome(&client.tokens.rotate(rotate).await),
        outcome(&client.tokens.end_overlap(end).await),
        outcome(&client.tokens.revoke(revoke).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_owners_with_the_same_etag_one_change_is_made_and_the_other_refused() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let (mut owner, mut admin) = (server.owner().await, server.admin().await);
    let read = etag(&server, &token.uid).await;
    let by_owner = describe(&server, &token.uid, ("the owner's", &read));
    let changed = owner.tokens.update(by_owner).await.unwrap().into_inner();
    let by_admin = describe(&server, &token.uid, ("the admin's", &read));
    let status = admin.tokens.update(by_admin).await.unwrap_err();
    assert_eq!(current(&status), changed.token.unwrap().etag);
    let seen = server.see(&token.uid).await;
    assert_eq!(seen.description, "the owner's");
    let after_a_look = describe(&server, &token.uid, ("both", &seen.etag));
    assert_eq!(outcome(&admin.tokens.update(after_a_look).await), "OK");
    let without = describe(&server, &token.uid, ("whatever it is", ""));
    assert_eq!(outcome(&owner.tokens.update(without).await), "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_who_read_the_same_token_exactly_one_changes_it() {
    let server = TestServer::start().await;
    for round in 0..5 {
        server.clock.advance(10 * SECOND);
        let token = server.token(&format!("token {round}")).await;
        let read = etag(&server, &token.uid).await;
        let changes = (0..16).map(|n| {
            let (server, token, read) = (&server, &token, &read);
            async move {
                let mut client = match n % 2 {
                    0 => server.owner().await,
                    _ => server.admin().await,
                };
                let text = format!("by {n}");
                let request = describe(server, &token.uid, (&text, read));
                (text, outcome(&client.tokens.update(request).await))
            }
        });
        let ended = join_all(changes).await;
        let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|(_, ended)| ended == "OK");
        assert!(lost.iter().all(|(_, ended)| ended == MISMATCH), "{lost:?}");
        let [(text, _)] = won[..] else {
            panic!("{ended:?}")
        };
        assert_eq!(&server.see(&token.uid).await.description, text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_takes_an_etag_and_is_refused_for_another_also_as_a_preview() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let other = server.token("other").await;
    let mut owner = server.owner().await;
    let key = (server.stack.as_str(), token.uid.as_str());
    let before = server.see(&token.uid).await;
    let others = etag(&server, &other.uid).await;
    assert_ne!(others, before.etag);
    for text in [&others, "x", "W/\"1\"", &"é".repeat(128)] {
        for validate_only in [true, false] {
            server.clock.advance(10 * SECOND);
            let ended = every_change(&mut owner, key, (text, validate_only)).await;
            assert_eq!(ended, [MISMATCH; 5], "{text}");
        }
    }
    let too_long = "x".repeat(129);
    let ended = every_change(&mut owner, key, (&too_long, false)).await;
    assert_eq!(ended, ["InvalidArgument INVALID_FIELD"; 5]);
    let request = describe(&server, "x", ("x", &too_long));
    let status = owner.tokens.update(request).await.unwrap_err();
    assert_eq!(fields(&status), ["token.token_uid", "etag"]);
    assert_eq!(server.see(&token.uid).await, before);
    server.clock.advance(10 * SECOND);
    let ended = every_change(&mut owner, key, (&before.etag, true)).await;
    assert_eq!(ended, ["OK"; 5], "previews accept the etag that was read");
    let ended = every_change(&mut owner, key, (&before.etag, false)).await;
    let first = ["OK", MISMATCH, MISMATCH, MISMATCH, MISMATCH];
    assert_eq!(
        ended, first,
        "the first change gives the token another etag"
    );
    let event = eventually("a refusal in the audit", async || {
        let events = server.audit().await;
        let mut refusals = events.into_iter();
        refusals.find(|event| event.error_reason == "ETAG_MISMATCH")
    });
    assert_eq!(event.await.token_uid, token.uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etag_changes_with_everything_that_can_be_set() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let (uid, stack) = (token.uid.as_str(), server.stack.as_str());
    let mut tokens = server.owner().await.tokens;
    let mut seen = vec![etag(&server, uid).await];
    let mut note = async |answered: Option<v1::Token>| {
        let now = etag(&server, uid).await;
        if let Some(token) = answered {
            assert_eq!(token.etag, now, "the response has the current etag");
        }
        let listed = server.owner().await.tokens.list(list_request(stack)).await;
        assert_eq!(listed.unwrap().into_inner().tokens[0].etag, now);
        assert!(!seen.contains(&now), "{seen:?}");
        seen.push(now);
    };
    let renamed = tokens.update(rename_request(stack, uid, "renamed")).await;
    note(renamed.unwrap().into_inner().token).await;
    let described = tokens.update(describe(&server, uid, ("x", ""))).await;
    note(described.unwrap().into_inner().token).await;
    let read = permit_request(stack, uid, permissions(Access::Read));
    note(tokens.update(read).await.unwrap().into_inner().token).await;
    let dated = set_expiry_request(stack, uid, at(START + 600));
    note(tokens.set_expiry(dated).await.unwrap().into_inner().token).await;
    for overlap in [overlap_for(60), UNTIL_FIRST_USE] {
        let rotated = tokens.rotate(rotate_request(stack, uid, overlap)).await;
        note(rotated.unwrap().into_inner().token).await;
    }
    let ended = tokens.end_overlap(end_overlap_request(stack, uid)).await;
    note(ended.unwrap().into_inner().token).await;
    server.clock.advance(600 * SECOND);
    note(None).await;
    let revoked = tokens.revoke(revoke_request(stack, uid, "")).await;
    note(revoked.unwrap().into_inner().token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etag_does_not_change_by_use_or_by_the_end_of_an_overlap() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let issued = etag(&server, &token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "OK");
    assert_eq!(etag(&server, &token.uid).await, issued, "first use");
    let newer = server.rotate(&token.uid, UNTIL_FIRST_USE).await;
    let rotated = etag(&server, &token.uid).await;
    assert_eq!(newer.token.unwrap().etag, rotated);
    assert_eq!(server.verdict(&newer.secret).await, "OK");
    assert_eq!(server.verdict(&token.secret).await, "SUPERSEDED");
    assert_eq!(
        etag(&server, &token.uid).await,
        rotated,
        "an overlap that ends by first use keeps the etag"
    );
    let newest = server.rotate(&token.uid, overlap_for(60)).await;
    let rotated = newest.token.unwrap().etag;
    server.clock.advance(61 * SECOND);
    assert_eq!(server.verdict(&newer.secret).await, "SUPERSEDED");
    assert_eq!(
        etag(&server, &token.uid).await,
        rotated,
        "an overlap that ends by time keeps the etag"
    );
    let nothing = end_overlap_request(&server.stack, &token.uid);
    let ended = server.owner().await.tokens.end_overlap(nothing).await;
    assert_eq!(ended.unwrap().into_inner().token.unwrap().etag, rotated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_looked_up_before_the_etag() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let read = etag(&server, &token.uid).await;
    let rotate = v1::RotateRequest {
        request_id: "once".into(),
        etag: read,
        ..rotate_request(&server.stack, &token.uid, overlap_for(60))
    };
    let mut owner = server.owner().await;
    let lost = owner.tokens.rotate(rotate.clone()).await.unwrap();
    let again = owner.tokens.rotate(rotate.clone()).await.unwrap();
    let (lost, again) = (lost.into_inner(), again.into_inner());
    assert_eq!(again.token.unwrap().generation, 3);
    assert_eq!(server.verdict(&lost.secret).await, "SUPERSEDED");
    let other = v1::RotateRequest {
        etag: etag(&server, &token.uid).await,
        ..rotate.clone()
    };
    let told = outcome(&owner.tokens.rotate(other).await);
    assert_eq!(told, "AlreadyExists REQUEST_ID_REUSED");
    let new = v1::RotateRequest {
        request_id: "twice".into(),
        ..rotate
    };
    assert_eq!(outcome(&owner.tokens.rotate(new).await), MISMATCH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_change_a_token_learns_nothing_of_its_etag() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let (stack, uid) = (server.stack.as_str(), token.uid.as_str());
    let mut developer = server.developer().await;
    let told = every_change(&mut developer, (stack, uid), ("x", false)).await;
    assert_eq!(told, ["PermissionDenied ROLE_REQUIRED"; 5]);
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    let told = every_change(&mut owner, (&other, uid), ("x", false)).await;
    assert_eq!(told, ["NotFound TOKEN_NOT_FOUND"; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_token_is_another_than_the_live_one_that_was_read() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let (stack, uid) = (server.stack.as_str(), token.uid.as_str());
    let read = etag(&server, uid).await;
    let mut owner = server.owner().await;
    let mut revoke = async |etag: &str| {
        let request = v1::RevokeRequest {
            etag: etag.into(),
            ..revoke_request(stack, uid, "over")
        };
        outcome(&owner.tokens.revoke(request).await)
    };
    assert_eq!(revoke(&read).await, "OK");
    assert_eq!(revoke(&read).await, MISMATCH);
    assert_eq!(revoke("").await, "OK", "again, without one");
    assert_eq!(revoke(&etag(&server, uid).await).await, "OK");
    let told = every_change(&mut owner, (stack, uid), (&read, false)).await;
    assert_eq!(told, [MISMATCH; 5]);

    let brief = server.token_until("brief", at(START + 5)).await;
    let read = etag(&server, &brief.uid).await;
    server.clock.advance(5 * SECOND);
    let redate = v1::SetExpiryRequest {
        etag: read,
        ..set_expiry_request(stack, &brief.uid, never())
    };
    assert_eq!(outcome(&owner.tokens.set_expiry(redate).await), MISMATCH);
}
