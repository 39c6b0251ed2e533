//! Tests repeated `RevokeAll` calls with the same `request_id`.

use std::time::Duration;

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{
    Client, TestServer, methods,
    requests::{EVERY_TOKEN, refused, revoke_all_request},
};

async fn send(
    client: &mut Client,
    request: &v1::RevokeAllRequest,
) -> Result<v1::RevokeAllResponse, Status> {
    let answered = client.tokens.revoke_all(request.clone()).await;
    answered.map(tonic::Response::into_inner)
}

/// Makes a preview, and returns the request that revokes the previewed tokens.
async fn request(server: &TestServer, id: &str) -> v1::RevokeAllRequest {
    let shown = revoke_all_request(&server.stack, &EVERY_TOKEN, None);
    let shown = send(&mut server.owner().await, &shown).await.unwrap();
    v1::RevokeAllRequest {
        request_id: id.into(),
        ..revoke_all_request(&server.stack, &EVERY_TOKEN, Some(&shown.preview_hash))
    }
}

const REUSED: Code = Code::AlreadyExists;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_answers_what_the_first_call_answered_and_revokes_nothing_more() {
    let server = TestServer::start().await;
    let (first, second) = (server.token("first").await, server.token("second").await);
    let mut owner = server.owner().await;
    let asked = request(&server, "incident-7").await;
    let done = send(&mut owner, &asked).await.unwrap();
    assert_eq!(done.count, 2);
    assert!(!done.revision.is_empty());
    server.clock.advance(Duration::from_secs(86_400));
    let later = server.token("issued later").await;
    for _ in 0..2 {
        assert_eq!(send(&mut owner, &asked).await.unwrap(), done);
    }
    let preview = v1::RevokeAllRequest {
        validate_only: true,
        ..asked.clone()
    };
    let shown = send(&mut owner, &preview).await.unwrap();
    assert_eq!((shown.count, &*shown.revision), (2, ""));
    assert_eq!(shown.token_uids, done.token_uids);
    assert_eq!(server.verdict(&later.secret).await, "OK");
    for secret in [&first.secret, &second.secret] {
        assert_eq!(server.verdict(secret).await, "REVOKED");
    }
    let events = server.audit().await.into_iter();
    let ours = events.filter(|event| event.method == methods::REVOKE_ALL);
    let again = ours.map(|event| event.details.contains_key("again"));
    assert_eq!(again.filter(|again| *again).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_for_one_content_caller_and_stack() {
    let server = TestServer::start().await;
    server.token("first").await;
    let mut owner = server.owner().await;
    let asked = request(&server, "incident-7").await;
    send(&mut owner, &asked).await.unwrap();
    let other_reason = v1::RevokeAllRequest {
        reason: "another".into(),
        ..asked.clone()
    };
    let status = send(&mut owner, &other_reason).await.unwrap_err();
    assert_eq!(refused(&status), (REUSED, "REQUEST_ID_REUSED".to_owned()));
    // Request ids belong to a caller, so this is a new call, and its preview is outdated.
    let status = send(&mut server.admin().await, &asked).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::Aborted, "PREVIEW_CHANGED".to_owned())
    );
    let other = server.register("Other").await;
    let shown = revoke_all_request(&other, &EVERY_TOKEN, None);
    let shown = send(&mut owner, &shown).await.unwrap();
    let elsewhere = v1::RevokeAllRequest {
        request_id: "incident-7".into(),
        ..revoke_all_request(&other, &EVERY_TOKEN, Some(&shown.preview_hash))
    };
    assert_eq!(send(&mut owner, &elsewhere).await.unwrap().count, 0);
    assert_eq!(send(&mut owner, &elsewhere).await.unwrap().count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_refusal_nor_a_preview_uses_up_an_id() {
    let server = TestServer::start().await;
    server.token("first").await;
    let mut owner = server.owner().await;
    let stale = request(&server, "incident-7").await;
    server.token("second").await;
    let status = send(&mut owner, &stale).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    let asked = request(&server, "incident-7").await;
    let preview = v1::RevokeAllRequest {
        validate_only: true,
        ..asked.clone()
    };
    assert_eq!(send(&mut owner, &preview).await.unwrap().tokens.len(), 2);
    assert_eq!(send(&mut owner, &asked).await.unwrap().count, 2);
}
