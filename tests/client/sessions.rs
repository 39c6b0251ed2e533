//! Tests that the client answers from its cache for the secret of a session of a federated token.

use serde_json::json;
use stacktoken::{domain::verdict::Reason, grpc::pb::v1};
use stacktoken_client::Question;

use crate::{
    golden::client_of,
    scripted::until,
    support::{
        TestServer,
        federated::{exchange_request, job},
        permissions,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_answered_from_the_cache_until_it_ends() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let client = client_of(&server).await;
    let now = server.clock.seconds();
    let mut workload = server.workload(&job(now, json!({}))).await;
    let request = v1::ExchangeRequest {
        narrow: Some(permissions(v1::Access::Read)),
        ..exchange_request(&server.stack, &uid)
    };
    let secret = workload.exchange.exchange(request).await.unwrap();
    let secret = secret.into_inner().secret;
    let question = Question::new(&secret, &server.stack);
    let first = client.introspect(&question).await.unwrap();
    assert!(first.active() && !first.from_memory());
    let cached = client.introspect(&question).await.unwrap();
    assert!(cached.active() && cached.from_memory());
    let session = cached.session().unwrap();
    assert_eq!(session.subject, "repo octo/app run 7");
    assert_eq!(session.expires_at.seconds(), now + 900);
    let granted = cached.permissions().unwrap();
    assert_eq!(
        granted.access().name(),
        "READ",
        "narrowed as the session is"
    );

    let end = v1::EndSessionsRequest {
        stack_api_key: server.stack.clone(),
        token_uid: uid.clone(),
        ..Default::default()
    };
    server.owner().await.tokens.end_sessions(end).await.unwrap();
    until("the end arrives", || client.entries() == 0).await;
    let ended = client.introspect(&question).await.unwrap();
    assert_eq!(ended.reason(), Some(Reason::Revoked));
    assert!(ended.session().is_none());
}

/// The token is narrowed to permissions that the session does not have, so nothing is left of the
/// session's permissions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_which_nothing_is_left_may_do_nothing() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let client = client_of(&server).await;
    let only = |module: &str| v1::Permissions {
        modules: Some(v1::ModuleGrants {
            grants: vec![v1::ModuleGrant {
                module: module.into(),
                access: v1::Access::Read.into(),
            }],
        }),
        ..permissions(v1::Access::Read)
    };
    let mut workload = server
        .workload(&job(server.clock.seconds(), json!({})))
        .await;
    let request = v1::ExchangeRequest {
        narrow: Some(only("entry")),
        ..exchange_request(&server.stack, &uid)
    };
    let secret = workload.exchange.exchange(request).await.unwrap();
    let secret = secret.into_inner().secret;
    let narrow = v1::UpdateRequest {
        stack_api_key: server.stack.clone(),
        token: Some(v1::Token {
            token_uid: uid,
            permissions: Some(only("asset")),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["permissions".into()],
        }),
        ..Default::default()
    };
    server.owner().await.tokens.update(narrow).await.unwrap();
    let actions =
        ["entry.read", "asset.read"].map(|name| stacktoken::domain::verdict::ActionQuestion {
            name: name.into(),
            ..Default::default()
        });
    let question = Question::new(&secret, &server.stack).about(&actions);
    // The change of the token may arrive late. It then evicts the answer that was cached before.
    for _ in 0..200 {
        let answer = client.introspect(&question).await.unwrap();
        assert!(answer.active() && !answer.allowed());
        assert_eq!(answer.reason(), Some(Reason::ModuleNotGranted));
        if answer.from_memory() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is never answered from the cache");
}
