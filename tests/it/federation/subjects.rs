//! Workloads with a long `sub`. Platforms put several claims into it, such as the names of a
//! repository and of an environment.

use serde_json::json;
use stacktoken::grpc::pb::audit::v1::{ActorFilter, ListRequest};
use tonic::Code;

use crate::support::{
    TestServer,
    federated::{CI, job},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_with_a_long_sub_exchanges_and_is_found_in_the_audit_by_it() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let long = format!("repo:{}", "x".repeat(1019));
    let session = server
        .exchange(&job(now, json!({ "sub": long })), &uid)
        .await
        .unwrap();
    assert_eq!(server.inactive(&session.secret).await, "");
    let request = ListRequest {
        stack_api_key: server.stack.clone(),
        actors: vec![ActorFilter {
            issuer: CI.into(),
            subject: long.clone(),
        }],
        ..Default::default()
    };
    let mut owner = server.owner().await;
    let events = owner.audit.list(request).await.unwrap().into_inner().events;
    let [event] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(event.actor.as_ref().unwrap().subject, long);
    assert_eq!(event.details["subject"], "repo octo/app run 7");

    let longer = job(now, json!({ "sub": long + "x" }));
    let status = server.exchange(&longer, &uid).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
