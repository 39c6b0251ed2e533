//! Tests `GetUsage`: when a token was last used, and by which services.

use std::time::Duration;

use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer,
    clients::fields,
    clock::START,
    requests::{outcome, revoke_request},
};

fn request(stack: &str, uid: &str) -> v1::GetUsageRequest {
    v1::GetUsageRequest {
        stack_api_key: stack.into(),
        token_uid: uid.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_a_token_is_listed_at_once_and_also_after_its_end() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let asked = request(&server.stack, &token.uid);
    for client in [
        server.owner().await,
        server.admin().await,
        server.operator().await,
    ] {
        let answer = client.tokens.clone().get_usage(asked.clone()).await;
        let unused = v1::GetUsageResponse::default();
        assert_eq!(answer.unwrap().into_inner(), unused);
    }
    server.clock.advance(Duration::from_secs(5));
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let mut owner = server.owner().await;
    let used = owner.tokens.get_usage(asked.clone()).await.unwrap();
    let used = used.into_inner();
    assert_eq!(used.last_used_at.unwrap().seconds, START + 5);
    let service = used.services[0].service.clone().unwrap();
    assert_eq!(service.kind(), v1::CallerKind::Service);
    assert_eq!(used.services.len(), 1);
    assert_eq!(used.services[0].last_used_at, used.last_used_at);
    let revoke = revoke_request(&server.stack, &token.uid, "");
    owner.tokens.revoke(revoke).await.unwrap();
    let dead = owner.tokens.get_usage(asked).await.unwrap();
    assert_eq!(dead.into_inner(), used);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_use_of_a_token_is_for_those_who_manage_it() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let asked = request(&server.stack, &token.uid);
    for (mut client, wanted) in [
        (server.developer().await, "PermissionDenied ROLE_REQUIRED"),
        (server.stranger().await, "NotFound STACK_NOT_FOUND"),
        (server.service().await, "PermissionDenied ROLE_REQUIRED"),
    ] {
        let refused = client.tokens.get_usage(asked.clone()).await;
        assert_eq!(outcome(&refused), wanted);
    }
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    let refused = owner.tokens.get_usage(request(&other, &token.uid)).await;
    assert_eq!(outcome(&refused), "NotFound TOKEN_NOT_FOUND");
    let wrong = owner.tokens.get_usage(request("blt", "no uid")).await;
    assert_eq!(fields(&wrong.unwrap_err()), ["stack_api_key", "token_uid"]);
}
