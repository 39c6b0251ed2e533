//! Tests that a panic in a handler fails only its own call. The call is reported and counted as
//! INTERNAL, the panic message is not disclosed, and the server continues to work.

use tonic::Code;

use crate::support::{
    Client, TestServer,
    clock::PANIC,
    issue_request,
    raw::require_form,
    requests::{list_request, refused},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panicking_handler_is_an_internal_error_and_the_connection_stays_open() {
    let server = TestServer::start().await;
    let jwt = server.issuer.user("owner", server.clock.seconds());
    let mut owner = Client::new(server.channel().await, Some(format!("Bearer {jwt}")));
    let list = list_request(&server.stack);
    owner.tokens.list(list.clone()).await.unwrap();
    for round in 0..3 {
        // The handler panics when it requests random bytes for the secret.
        server.entropy.panic_once();
        let issue = issue_request(&server.stack, &format!("token {round}"));
        let status = owner.tokens.issue(issue.clone()).await.unwrap_err();
        assert_eq!(refused(&status), (Code::Internal, "INTERNAL".into()));
        require_form(&status, "Issue");
        let told = format!("{status:?}");
        assert!(!told.contains(PANIC) && !told.contains("panic"), "{told}");
        let counted = server
            .metric("stacktoken_errors_total{reason=\"INTERNAL\"}")
            .await;
        assert_eq!(counted, f64::from(round + 1));
        // The panic left no partial change and no lock, and the connection is still usable.
        let listed = owner.tokens.list(list.clone()).await.unwrap().into_inner();
        assert_eq!(listed.tokens.len(), round as usize);
        owner.tokens.issue(issue).await.unwrap();
    }
    assert!(!server.metrics().await.contains(PANIC));
    let audit = format!("{:?}", server.audit().await);
    assert!(!audit.contains(PANIC), "{audit}");
    server.stop().await.unwrap();
}
