//! A handler that panics is a fault of one call: it is told and counted as such, what the panic
//! says is told to nobody, and everything else goes on.

use tonic::Code;

use crate::support::{
    Client, TestServer,
    clock::PANIC,
    issue_request,
    raw::require_form,
    requests::{list_request, refused},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_is_told_as_a_fault_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let jwt = server.issuer.user("owner", server.clock.seconds());
    let mut owner = Client::new(server.channel().await, Some(format!("Bearer {jwt}")));
    let list = list_request(&server.stack);
    owner.tokens.list(list.clone()).await.unwrap();
    for round in 0..3 {
        // The next to ask is the handler, for a secret.
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
        // Nothing is half done, no lock is held, and the connection stands.
        let listed = owner.tokens.list(list.clone()).await.unwrap().into_inner();
        assert_eq!(listed.tokens.len(), round as usize);
        owner.tokens.issue(issue).await.unwrap();
    }
    assert!(!server.metrics().await.contains(PANIC));
    let audit = format!("{:?}", server.audit().await);
    assert!(!audit.contains(PANIC), "{audit}");
    server.stop().await.unwrap();
}
