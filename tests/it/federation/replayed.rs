//! Tests that exchange the same JWT of a workload more than once.

use std::time::Duration;

use serde_json::json;
use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use super::{live, refusal};
use crate::support::{
    Client, TestServer,
    federated::{exchange_request, job, pod, pods},
};

async fn again(
    workload: &mut Client,
    request: &v1::ExchangeRequest,
) -> Result<v1::ExchangeResponse, Status> {
    let exchanged = workload.exchange.exchange(request.clone()).await;
    exchanged.map(tonic::Response::into_inner)
}

fn require_replayed(answered: Result<v1::ExchangeResponse, Status>) {
    let expected = (Code::PermissionDenied, "EXCHANGE_REFUSED".to_owned());
    assert_eq!(refusal(&answered.unwrap_err()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_repeated_with_another_secret_and_the_lost_one_dies() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = exchange_request(&server.stack, &uid);
    let lost = again(&mut workload, &request).await.unwrap();
    server.clock.advance(Duration::from_secs(590));
    let kept = again(&mut workload, &request).await.unwrap();
    assert_ne!(lost.secret, kept.secret);
    assert_eq!(lost.expires_at, kept.expires_at, "it is the same session");
    assert_eq!(live(&server, &uid).await, 1);
    assert_eq!(server.inactive(&lost.secret).await, "NOT_RECOGNIZED");
    assert_eq!(server.inactive(&kept.secret).await, "");
    // The secret was used, so the client must have received the answer.
    require_replayed(again(&mut workload, &request).await);
    assert_eq!(server.inactive(&kept.secret).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_is_not_exchanged_again_for_anything_else() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let claims = job(server.clock.seconds(), json!({}));
    let mut workload = server.workload(&claims).await;
    let request = exchange_request(&server.stack, &uid);
    let kept = again(&mut workload, &request).await.unwrap();
    let other = [
        v1::ExchangeRequest {
            session_for: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..request.clone()
        },
        exchange_request(&server.stack, ""),
    ];
    for request in other {
        require_replayed(again(&mut workload, &request).await);
    }
    // Another assertion has the same id.
    let mut claims = claims;
    claims["run_id"] = "9".into();
    let mut another = server.workload(&claims).await;
    require_replayed(again(&mut another, &request).await);
    assert_eq!(
        server.inactive(&kept.secret).await,
        "",
        "the first one works"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_session_that_was_ended_is_not_resumed() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = exchange_request(&server.stack, &uid);
    again(&mut workload, &request).await.unwrap();
    let end = super::end(&server, &uid, "");
    server.owner().await.tokens.end_sessions(end).await.unwrap();
    require_replayed(again(&mut workload, &request).await);
    assert_eq!(live(&server, &uid).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_that_is_refused_leaves_the_session_its_secret() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = v1::ExchangeRequest {
        narrow: Some(on_module("entry")),
        ..exchange_request(&server.stack, &uid)
    };
    let kept = again(&mut workload, &request).await.unwrap();
    let permit = async |permissions: v1::Permissions| {
        let update = v1::UpdateRequest {
            stack_api_key: server.stack.clone(),
            token: Some(v1::Token {
                token_uid: uid.clone(),
                permissions: Some(permissions),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["permissions".into()],
            }),
            ..Default::default()
        };
        server.owner().await.tokens.update(update).await.unwrap();
    };
    permit(on_module("asset")).await;
    require_replayed(again(&mut workload, &request).await);
    permit(on_module("entry")).await;
    assert_eq!(server.inactive(&kept.secret).await, "");
}

/// Returns the permission to read one module and nothing else.
fn on_module(name: &str) -> v1::Permissions {
    v1::Permissions {
        access: v1::Access::Read.into(),
        modules: Some(v1::ModuleGrants {
            grants: vec![v1::ModuleGrant {
                module: name.into(),
                access: v1::Access::Read.into(),
            }],
        }),
        branches: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_exchange_does_not_use_the_assertion_up() {
    let server = TestServer::start_with(|tuning| tuning.max_sessions_per_token = 1).await;
    let uid = server.federated("ci").await;
    server.session(&uid).await;
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = exchange_request(&server.stack, &uid);
    let full = again(&mut workload, &request).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "SESSION_LIMIT".to_owned());
    assert_eq!(refusal(&full), expected);
    let end = super::end(&server, &uid, "");
    server.owner().await.tokens.end_sessions(end).await.unwrap();
    again(&mut workload, &request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_that_is_reusable_starts_another_session_each_time() {
    let server = TestServer::start_with(|tuning| tuning.max_sessions_per_subject = 3).await;
    let uid = server.federated_as("pods", pods()).await;
    let mut workload = server.workload(&pod(server.clock.seconds())).await;
    let request = exchange_request(&server.stack, &uid);
    let mut secrets = Vec::new();
    for _ in 0..3 {
        secrets.push(again(&mut workload, &request).await.unwrap().secret);
    }
    for secret in &secrets {
        assert_eq!(server.inactive(secret).await, "");
    }
    let full = again(&mut workload, &request).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "SESSION_LIMIT".to_owned());
    assert_eq!(refusal(&full), expected);
    assert_eq!(live(&server, &uid).await, 3);
}
