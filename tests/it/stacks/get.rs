use stacktoken::grpc::pb::{
    admin::v1::GetRequest,
    v1::{RevokeRequest, StackState},
};

use super::{NOT_FOUND, UNKNOWN, ended, remove, seen, set_expiry, suspend};
use crate::support::{TestServer, at, clients::fields, now};
use std::time::Duration;

fn get(key: &str) -> GetRequest {
    GetRequest {
        stack_api_key: key.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_admin_and_operator_see_how_many_tokens_there_are_and_may_be() {
    let server = TestServer::start().await;
    server.issue("first").await;
    server.issue("second").await;
    for mut client in [
        server.owner().await,
        server.admin().await,
        server.operator().await,
    ] {
        let answer = client.stacks.get(get(&server.stack)).await.unwrap();
        let stack = answer.into_inner().stack.unwrap();
        let limit = stack.limit.unwrap();
        assert_eq!((limit.used, limit.max), (2, 10));
        assert_eq!(stack.stack_api_key, server.stack);
        assert_eq!(stack.owner.unwrap().subject, "owner");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_live_tokens_count_as_used() {
    let server = TestServer::start().await;
    let used = async || {
        let stack = seen(&server, &server.stack).await.stack.unwrap();
        stack.limit.unwrap().used
    };
    let uid = async |name| server.issue(name).await.token.unwrap().token_uid;
    let (revoked, killed, brief) = (uid("a").await, uid("b").await, uid("c").await);
    uid("d").await;
    assert_eq!(used().await, 4);
    let mut owner = server.owner().await;
    let revoke = RevokeRequest {
        stack_api_key: server.stack.clone(),
        token_uid: revoked,
        reason: String::new(),
        validate_only: false,
        etag: String::new(),
    };
    owner.tokens.revoke(revoke).await.unwrap();
    assert_eq!(used().await, 3);
    let kill = set_expiry(&server.stack, &killed, now());
    owner.tokens.set_expiry(kill).await.unwrap();
    assert_eq!(used().await, 2);
    let in_a_minute = at(server.clock.seconds() + 60);
    let shorten = set_expiry(&server.stack, &brief, in_a_minute);
    owner.tokens.set_expiry(shorten).await.unwrap();
    assert_eq!(used().await, 2);
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(used().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_of_others_and_one_that_is_not_there_look_the_same() {
    let server = TestServer::start().await;
    let mut stranger = server.stranger().await;
    let others = stranger.stacks.get(get(&server.stack)).await.unwrap_err();
    let none = stranger.stacks.get(get(UNKNOWN)).await.unwrap_err();
    assert_eq!(others.code(), none.code());
    assert_eq!(others.message(), none.message());
    ended(&Err::<(), _>(none), NOT_FOUND);
    let mut operator = server.operator().await;
    ended(&operator.stacks.get(get(UNKNOWN)).await, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_is_seen_by_operators_only() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let stack = seen(&server, &server.stack).await.stack.unwrap();
    assert_eq!(stack.state(), StackState::Removed);
    assert_eq!(stack.removed_at.unwrap().seconds, server.clock.seconds());
    for mut client in [server.owner().await, server.admin().await] {
        ended(&client.stacks.get(get(&server.stack)).await, NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_none_is_reported() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for key in ["", "blt", "00c0ffee00c0ffee", "blt00C0FFEE00C0FFEE"] {
        let status = operator.stacks.get(get(key)).await.unwrap_err();
        assert_eq!(fields(&status), ["stack_api_key"], "{key:?}");
    }
}
