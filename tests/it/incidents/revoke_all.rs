//! Tests that `RevokeAll` revokes exactly the previewed tokens, or none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::v1::{self, CallerKind, RevokeFilter};
use tonic::{Code, Status};

use crate::support::{
    Client, TestServer, at,
    clients::{details, fields},
    clock::START,
    issue_request, methods,
    requests::{EVERY_TOKEN, issued_by, refused, revoke_all_request as request},
};

fn unused_since(seconds: i64) -> RevokeFilter {
    RevokeFilter {
        unused_since: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    }
}

async fn send(
    client: &mut Client,
    request: v1::RevokeAllRequest,
) -> Result<v1::RevokeAllResponse, Status> {
    let answered = client.tokens.revoke_all(request).await;
    answered.map(tonic::Response::into_inner)
}

async fn preview(server: &TestServer, filter: &RevokeFilter) -> v1::RevokeAllResponse {
    let asked = request(&server.stack, filter, None);
    let shown = send(&mut server.owner().await, asked).await.unwrap();
    assert_eq!(shown.revision, "", "a preview changes nothing");
    shown
}

async fn revoke(
    server: &TestServer,
    filter: &RevokeFilter,
    hash: &str,
) -> Result<v1::RevokeAllResponse, Status> {
    let asked = request(&server.stack, filter, Some(hash));
    send(&mut server.owner().await, asked).await
}

fn require_changed(answered: Result<v1::RevokeAllResponse, Status>, count: usize) {
    let status = answered.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::Aborted, "PREVIEW_CHANGED".to_owned())
    );
    let info = details(&status).error_info().cloned().unwrap();
    assert_eq!(info.metadata["count"], count.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_shows_and_then_revokes_its_tokens_and_no_other() {
    let server = TestServer::start().await;
    let old_used = server.token("old, used").await;
    let old = server.token("old").await;
    let dead = server.token_until("dead", at(START + 1)).await;
    server.clock.advance(Duration::from_secs(100));
    assert_eq!(server.verdict(&old_used.secret).await, "OK");
    let asked = issue_request(&server.stack, "the admin's");
    let admins = server.admin().await.tokens.issue(asked).await.unwrap();
    let admins = admins.into_inner().token.unwrap().token_uid;
    let both = RevokeFilter {
        unused_since: unused_since(START + 50).unused_since,
        ..issued_by("admin", CallerKind::Unspecified)
    };
    let table: [(RevokeFilter, Vec<&str>); 9] = [
        (EVERY_TOKEN, vec![&old_used.uid, &old.uid, &admins]),
        (issued_by("admin", CallerKind::Unspecified), vec![&admins]),
        (issued_by("admin", CallerKind::User), vec![&admins]),
        (issued_by("admin", CallerKind::Operator), vec![]),
        (issued_by("nobody", CallerKind::Unspecified), vec![]),
        (unused_since(START + 100), vec![&old.uid]),
        (unused_since(START), vec![]),
        (unused_since(START + 50), vec![&old.uid]),
        (both, vec![]),
    ];
    for (filter, wanted) in &table {
        let shown = preview(&server, filter).await;
        let found: BTreeSet<_> = shown.token_uids.iter().map(String::as_str).collect();
        assert_eq!(found, wanted.iter().copied().collect(), "{filter:?}");
        assert_eq!(shown.count as usize, wanted.len());
        assert_eq!(server.limit().await.0, 3, "a preview changes nothing");
    }
    let done = preview(&server, &table[5].0).await;
    let done = revoke(&server, &table[5].0, &done.preview_hash).await;
    assert_eq!(done.unwrap().token_uids, std::slice::from_ref(&old.uid));
    assert_eq!(server.verdict(&old.secret).await, "REVOKED");
    assert_eq!(server.verdict(&old_used.secret).await, "OK");
    let shown = preview(&server, &EVERY_TOKEN).await;
    let done = revoke(&server, &EVERY_TOKEN, &shown.preview_hash)
        .await
        .unwrap();
    assert!(!done.revision.is_empty());
    assert_eq!(
        (done.count, done.token_uids),
        (2, shown.token_uids),
        "as shown"
    );
    assert_eq!(server.verdict(&old_used.secret).await, "REVOKED");
    let seen = server.see(&old_used.uid).await;
    assert_eq!(seen.revoke_reason, "a breach");
    assert_eq!(seen.revoked_by.unwrap().subject, "owner");
    let seen = server.see(&dead.uid).await;
    assert_eq!(
        seen.state(),
        v1::TokenState::Expired,
        "a dead token keeps its state"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_the_preview_stops_it_and_nothing_is_revoked() {
    let server = TestServer::start().await;
    let first = server.token("first").await;
    let short = server.token_until("short", at(START + 10)).await;
    let unused = unused_since(START + 20);

    let shown = preview(&server, &EVERY_TOKEN).await.preview_hash;
    let second = server.token("second").await;
    require_changed(revoke(&server, &EVERY_TOKEN, &shown).await, 3);

    let shown = preview(&server, &EVERY_TOKEN).await.preview_hash;
    server.revoke(&second.uid).await;
    require_changed(revoke(&server, &EVERY_TOKEN, &shown).await, 2);

    let shown = preview(&server, &EVERY_TOKEN).await.preview_hash;
    server.clock.advance(Duration::from_secs(10));
    require_changed(revoke(&server, &EVERY_TOKEN, &shown).await, 1);
    assert_eq!(server.verdict(&short.secret).await, "EXPIRED");

    server.clock.advance(Duration::from_secs(10));
    let shown = preview(&server, &unused).await.preview_hash;
    assert_eq!(server.verdict(&first.secret).await, "OK");
    require_changed(revoke(&server, &unused, &shown).await, 0);
    assert_eq!(server.verdict(&first.secret).await, "OK");

    // A rotation does not change the set.
    let shown = preview(&server, &EVERY_TOKEN).await.preview_hash;
    let newer = server.rotate(&first.uid, crate::support::requests::overlap_for(60));
    let newer = newer.await.secret;
    assert_eq!(
        revoke(&server, &EVERY_TOKEN, &shown).await.unwrap().count,
        1
    );
    for secret in [&first.secret, &newer] {
        assert_eq!(server.verdict(secret).await, "REVOKED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_of_another_stack_or_filter_is_refused_and_a_repetition_too() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let other = server.register("Other").await;
    let shown = request(&other, &EVERY_TOKEN, None);
    let shown = send(&mut owner, shown).await.unwrap();
    // A preview of another stack is not accepted, even if both sets are empty.
    require_changed(revoke(&server, &EVERY_TOKEN, &shown.preview_hash).await, 0);
    let token = server.token("deploy").await;
    require_changed(revoke(&server, &EVERY_TOKEN, &shown.preview_hash).await, 1);
    let owners = issued_by("owner", CallerKind::Unspecified);
    let shown = preview(&server, &owners).await.preview_hash;
    require_changed(revoke(&server, &EVERY_TOKEN, &shown).await, 1);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let mut still = request(&server.stack, &owners, Some(&shown));
    still.validate_only = true;
    assert_eq!(send(&mut owner, still.clone()).await.unwrap().count, 1);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    assert_eq!(revoke(&server, &owners, &shown).await.unwrap().count, 1);
    require_changed(revoke(&server, &owners, &shown).await, 0);
    require_changed(send(&mut owner, still).await, 0);
    let empty = preview(&server, &owners).await;
    server.clock.advance(Duration::from_secs(1));
    let done = revoke(&server, &owners, &empty.preview_hash).await.unwrap();
    assert_eq!((done.count, done.revision.as_str()), (0, ""));
    let events = server.audit().await;
    assert_eq!(events[0].method, methods::REVOKE_ALL);
    assert_eq!(
        (events[0].details["count"].as_str(), &*events[0].token_uid),
        ("0", "")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_left_out_for_having_expired_stay_dead_also_if_the_clock_goes_back() {
    let server = TestServer::start().await;
    let short = server.token_until("short", at(START + 10)).await;
    let live = server.token("live").await;
    assert_eq!(server.verdict(&short.secret).await, "OK");
    server.clock.advance(Duration::from_secs(20));
    let shown = preview(&server, &EVERY_TOKEN).await;
    assert_eq!(shown.token_uids, [live.uid]);
    revoke(&server, &EVERY_TOKEN, &shown.preview_hash)
        .await
        .unwrap();
    server.clock.set_back(Duration::from_secs(15));
    assert_eq!(server.verdict(&short.secret).await, "EXPIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_suspended_it_works_and_each_token_has_its_row_in_the_audit() {
    let server = TestServer::start().await;
    let mut tokens = Vec::new();
    for n in 0..3 {
        tokens.push(server.token(&format!("token {n}")).await);
    }
    server.suspend().await;
    let owners = issued_by("owner", CallerKind::User);
    let shown = preview(&server, &owners).await;
    let asked = request(&server.stack, &owners, Some(&shown.preview_hash));
    send(&mut server.operator().await, asked).await.unwrap();
    server.resume().await;
    let events = server.audit().await;
    let rows: BTreeMap<_, _> = events
        .iter()
        .filter(|event| event.method == methods::REVOKE_ALL)
        .map(|event| (event.token_uid.clone(), event.details.clone()))
        .collect();
    assert_eq!(rows.len(), 3);
    for token in tokens {
        assert_eq!(server.verdict(&token.secret).await, "REVOKED");
        let details = &rows[&token.uid];
        assert_eq!(details["preview_hash"], shown.preview_hash);
        assert_eq!(details["count"], "3");
        assert_eq!(details["reason"], "a breach");
        assert_eq!(details["filter.issued_by.subject"], "owner");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_that_is_wrong_is_named() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let hash = preview(&server, &EVERY_TOKEN).await.preview_hash;
    let good = || request(&server.stack, &EVERY_TOKEN, Some(&hash));
    let with = |filter: RevokeFilter| request(&server.stack, &filter, Some(&hash));
    let mixed = RevokeFilter {
        all: true,
        ..issued_by("ann", CallerKind::User)
    };
    let mut nobody = issued_by("", CallerKind::User);
    nobody.issued_by.as_mut().unwrap().issuer.clear();
    nobody.issued_by.as_mut().unwrap().kind = 9;
    let long = "x".repeat(501);
    let table: Vec<(v1::RevokeAllRequest, &[&str])> = vec![
        (
            v1::RevokeAllRequest::default(),
            &["stack_api_key", "filter", "reason", "preview_hash"],
        ),
        (with(RevokeFilter::default()), &["filter"]),
        (with(mixed), &["filter"]),
        (
            with(nobody),
            &[
                "filter.issued_by.kind",
                "filter.issued_by.issuer",
                "filter.issued_by.subject",
            ],
        ),
        (with(unused_since(START + 1)), &["filter.unused_since"]),
        (with(unused_since(i64::MAX)), &["filter.unused_since"]),
        (
            request(&server.stack, &EVERY_TOKEN, Some("")),
            &["preview_hash"],
        ),
        (
            request(&server.stack, &EVERY_TOKEN, Some("0a")),
            &["preview_hash"],
        ),
        (
            v1::RevokeAllRequest {
                reason: " ".into(),
                ..good()
            },
            &["reason"],
        ),
        (
            v1::RevokeAllRequest {
                reason: long,
                ..good()
            },
            &["reason"],
        ),
        (
            v1::RevokeAllRequest {
                reason: token.secret.clone(),
                ..good()
            },
            &["reason"],
        ),
    ];
    for (asked, wanted) in table {
        let status = send(&mut owner, asked).await.unwrap_err();
        assert_eq!(fields(&status), wanted, "{status:?}");
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_at_once_one_wins_and_an_issue_is_in_the_set_or_stops_it() {
    let server = TestServer::start().await;
    server.set_limit(1000).await;
    for round in 0..20 {
        server.token(&format!("first {round}")).await;
        let hash = preview(&server, &EVERY_TOKEN).await.preview_hash;
        let (mut one, mut two) = (server.owner().await, server.admin().await);
        let mut third = server.owner().await;
        let asked = || request(&server.stack, &EVERY_TOKEN, Some(&hash));
        let late = issue_request(&server.stack, &format!("late {round}"));
        let (a, b, issued) = tokio::join!(
            send(&mut one, asked()),
            send(&mut two, asked()),
            third.tokens.issue(late)
        );
        let issued = issued.unwrap().into_inner().secret;
        let won = [&a, &b].into_iter().filter(|answer| answer.is_ok()).count();
        assert!(won < 2, "round {round}");
        assert_eq!(
            server.verdict(&issued).await,
            "OK",
            "not in the preview, so still live"
        );
        let live = server.limit().await.0;
        assert_eq!(live, if won == 1 { 1 } else { 2 }, "round {round}");
        let rest = preview(&server, &EVERY_TOKEN).await.preview_hash;
        revoke(&server, &EVERY_TOKEN, &rest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tokens_die_in_one_call() {
    let server = TestServer::start().await;
    server.set_limit(1000).await;
    let mut owner = server.owner().await;
    let mut secrets = Vec::new();
    for n in 0..1000 {
        let asked = issue_request(&server.stack, &format!("token {n}"));
        secrets.push(owner.tokens.issue(asked).await.unwrap().into_inner().secret);
    }
    let shown = preview(&server, &EVERY_TOKEN).await;
    assert_eq!((shown.count, shown.token_uids.len()), (1000, 100));
    let begun = Instant::now();
    let done = revoke(&server, &EVERY_TOKEN, &shown.preview_hash)
        .await
        .unwrap();
    let took = begun.elapsed();
    println!("1,000 tokens revoked on SQLite in {took:?}");
    assert_eq!(done.count, 1000);
    assert_eq!(server.limit().await.0, 0);
    for secret in secrets.iter().step_by(99) {
        assert_eq!(server.verdict(secret).await, "REVOKED");
    }
}
