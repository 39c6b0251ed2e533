use crate::support::TestServer;
use stacktoken::grpc::pb::v1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_token_is_resolved_to_its_stack_and_permissions() {
    let server = TestServer::start().await;
    let issued = server.issue("deploy").await;
    let answer = server.introspect(&issued.secret, &["entry.update"]).await;
    assert!(answer.active);
    assert_eq!(answer.decision(), v1::Decision::Allow);
    assert_eq!(answer.stack.unwrap().stack_api_key, server.stack);
    assert_eq!(
        answer.token.unwrap().token_uid,
        issued.token.unwrap().token_uid
    );
    assert_eq!(answer.permissions.unwrap().access(), v1::Access::ReadWrite);
}
