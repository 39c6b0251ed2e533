//! Tests what a replica of the version before federated tokens would do to such a token, which it
//! takes for an ordinary one. `tests/replicas/federation.rs` tests the same on PostgreSQL.

use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_gives_a_federated_token_no_secret_and_can_purge_it() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    server.session(&uid).await;
    let outside = server.outside().await;
    let sql = "UPDATE tokens SET generation = 1 WHERE federation IS NOT NULL";
    let refused = outside.try_run(sql).await.unwrap_err();
    assert!(refused.contains("CHECK"), "{refused}");
    outside.run("DELETE FROM tokens").await;
    assert_eq!(outside.number("SELECT count(*) FROM sessions").await, 0);
    outside.close().await;
}
