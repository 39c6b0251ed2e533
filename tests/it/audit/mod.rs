//! Tests that each change writes one audit row, that refusals of authenticated callers are combined
//! into rows with a count, and that nothing else writes to the audit log (R14).

mod changes;
mod filters;
mod folding;
mod list;
mod refusals;

use std::collections::HashMap;

use stacktoken::grpc::pb::{admin::v1 as admin, v1};
use tonic::Request;

use crate::support::{
    TestServer,
    requests::{get_request, list_request},
};

fn with_id<M>(message: M, id: &str) -> Request<M> {
    let mut request = Request::new(message);
    let value = id.parse().unwrap();
    request.metadata_mut().insert("x-request-id", value);
    request
}

fn details(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_leave_no_rows() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let before = server.audit().await;
    let mut owner = server.owner().await;
    owner
        .tokens
        .get(get_request(&server.stack, &token.uid))
        .await
        .unwrap();
    owner
        .tokens
        .list(list_request(&server.stack))
        .await
        .unwrap();
    let of_stack = admin::GetRequest {
        stack_api_key: server.stack.clone(),
    };
    owner.stacks.get(of_stack).await.unwrap();
    owner
        .actions
        .list_actions(v1::ListActionsRequest {})
        .await
        .unwrap();
    server.introspect(&token.secret, &["entry.read"]).await;
    assert_eq!(server.audit().await, before);
}
