//! Tests that a panic in a handler fails only its own call, and that a panic of a background task ends
//! the server. The call is reported and counted as INTERNAL, the panic message is not disclosed, and
//! the server continues to work.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use stacktoken::server::ServeError;
use tonic::Code;

use crate::support::{
    Client, TestServer,
    certificates::{Ca, Mount},
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

/// Returns the names of the background tasks that the code of the server starts.
fn names_in_the_code() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server");
    let mut names = BTreeSet::from(["audit of refusals".to_owned()]);
    for file in ["lifecycle.rs", "ports.rs"] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        for start in ["tasks.run(", "unless_failing("] {
            for after in text.split(start).skip(1) {
                if let Some(quoted) = after.trim_start().strip_prefix('"') {
                    names.insert(quoted.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    names
}

/// Every background task of a server with a file and TLS.
const TASKS: [&str; 16] = [
    "admin",
    "audit of refusals",
    "expiry",
    "feed",
    "grpc",
    "guard",
    "health",
    "heartbeat",
    "housekeeping",
    "http",
    "keys",
    "listener",
    "log sampling",
    "read-only",
    "tls",
    "usage",
];

/// Starts a server whose task of this name panics.
async fn failing(task: &'static str) -> TestServer {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server(), &[&ca]);
    TestServer::launch_failing(mount.files(false), task).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_background_task_that_panics_ends_the_server_whichever_it_is() {
    assert_eq!(names_in_the_code(), TASKS.map(str::to_owned).into());
    for task in TASKS {
        let server = failing(task).await;
        let began = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(10), server.ended()).await;
        let took = began.elapsed();
        println!("{task}: ended after {took:?}");
        let error = ended
            .unwrap_or_else(|_| panic!("{task}: half alive"))
            .unwrap_err();
        assert!(
            matches!(error, ServeError::TaskFailed(_)),
            "{task}: {error:?}"
        );
        // The task panics 0.2 s after its start.
        assert!(took < Duration::from_millis(1_200), "{task}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_which_no_task_panics_goes_on() {
    let server = failing("none of them").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.stop().await.unwrap();
}
