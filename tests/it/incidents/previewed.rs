//! Tests that a preview of `RevokeAll` lists the right tokens, in pages with the same hash.

use std::time::Duration;

use stacktoken::grpc::pb::v1::{self, CallerKind};
use tonic::{Code, Status};

use crate::support::{
    TestServer,
    clients::fields,
    clock::START,
    requests::{EVERY_TOKEN, issued_by, refused, revoke_all_request},
};

async fn page(
    server: &TestServer,
    (size, token): (i32, &str),
) -> Result<v1::RevokeAllResponse, Status> {
    let request = v1::RevokeAllRequest {
        page_size: size,
        page_token: token.into(),
        ..revoke_all_request(&server.stack, &EVERY_TOKEN, None)
    };
    let answered = server.owner().await.tokens.revoke_all(request).await;
    answered.map(tonic::Response::into_inner)
}

/// Returns the tokens of all pages, requested with this page size.
async fn pages(server: &TestServer, size: i32) -> Vec<v1::PreviewedToken> {
    let first = page(server, (size, "")).await.unwrap();
    let (mut tokens, mut next) = (first.tokens.clone(), first.next_page_token.clone());
    while !next.is_empty() {
        let page = page(server, (size, &next)).await.unwrap();
        assert!(page.tokens.len() <= usize::try_from(size).unwrap());
        let whole = (page.count, &page.preview_hash, &page.token_uids);
        assert_eq!(whole, (first.count, &first.preview_hash, &first.token_uids));
        tokens.extend(page.tokens);
        next = page.next_page_token;
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_names_each_token_with_its_last_use() {
    let server = TestServer::start().await;
    let (used, unused) = (server.token("used").await, server.token("unused").await);
    let dead = server.token("dead").await;
    server.revoke(&dead.uid).await;
    server.clock.advance(Duration::from_secs(7));
    assert_eq!(server.verdict(&used.secret).await, "OK");
    let shown = page(&server, (0, "")).await.unwrap();
    let named = |uid: &str, name: &str, seconds: Option<i64>| v1::PreviewedToken {
        token_uid: uid.into(),
        name: name.into(),
        last_used_at: seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
    };
    let mut wanted = [
        named(&used.uid, "used", Some(START + 7)),
        named(&unused.uid, "unused", None),
    ];
    wanted.sort_by(|one, other| one.token_uid.cmp(&other.token_uid));
    assert_eq!(shown.tokens, wanted);
    assert_eq!(shown.next_page_token, "");
    let request = revoke_all_request(&server.stack, &EVERY_TOKEN, Some(&shown.preview_hash));
    let done = server.owner().await.tokens.revoke_all(request).await;
    let done = done.unwrap().into_inner();
    assert_eq!(
        (done.count, done.tokens.len()),
        (2, 0),
        "only previews list the tokens"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_name_every_token_once() {
    let server = TestServer::start().await;
    server.set_limit(150).await;
    for n in 0..7 {
        server.token(&format!("token {n}")).await;
    }
    let all = pages(&server, 100).await;
    assert_eq!(all.len(), 7);
    for size in 1..=8 {
        assert_eq!(pages(&server, size).await, all, "{size}");
    }
    for n in 7..101 {
        server.token(&format!("token {n}")).await;
    }
    for (size, expected) in [(0, 50), (100, 100), (1000, 100)] {
        let shown = page(&server, (size, "")).await.unwrap();
        assert_eq!((shown.count, shown.tokens.len()), (101, expected));
        assert_eq!(shown.token_uids.len(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_asked_for_after_the_set_has_changed_is_preview_changed() {
    let server = TestServer::start().await;
    for n in 0..3 {
        server.token(&format!("token {n}")).await;
    }
    let first = page(&server, (2, "")).await.unwrap();
    assert_eq!(
        page(&server, (2, &first.next_page_token))
            .await
            .unwrap()
            .tokens
            .len(),
        1
    );
    let fourth = server.token("fourth").await;
    let changed = (Code::Aborted, "PREVIEW_CHANGED".to_owned());
    let status = page(&server, (2, &first.next_page_token))
        .await
        .unwrap_err();
    assert_eq!(refused(&status), changed);
    // The set contains the same tokens again, so it has the same hash.
    server.revoke(&fourth.uid).await;
    let rest = page(&server, (2, &first.next_page_token)).await.unwrap();
    assert_eq!(rest.preview_hash, first.preview_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_is_for_one_stack_and_filter_and_every_fault_is_named() {
    let server = TestServer::start().await;
    server.token("one").await;
    server.token("two").await;
    let first = page(&server, (1, "")).await.unwrap();
    let mut owner = server.owner().await;
    let other = issued_by("owner", CallerKind::Unspecified);
    let request = v1::RevokeAllRequest {
        page_token: first.next_page_token,
        ..revoke_all_request(&server.stack, &other, None)
    };
    let status = owner.tokens.revoke_all(request).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
    let request = v1::RevokeAllRequest {
        page_size: -1,
        request_id: "a b".into(),
        reason: String::new(),
        ..revoke_all_request(&server.stack, &EVERY_TOKEN, None)
    };
    let status = owner.tokens.revoke_all(request).await.unwrap_err();
    assert_eq!(fields(&status), ["reason", "request_id", "page_size"]);
}
