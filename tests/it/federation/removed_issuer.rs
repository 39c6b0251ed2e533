//! The operator removes an issuer from the issuers file, and adds it again.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use stacktoken::grpc::pb::v1;
use tempfile::TempDir;
use tonic::Code;

use super::refusal;
use crate::support::{
    ManualClock, TestServer,
    federated::{job, rule},
};

const ENTRY: &str = r#"
[[issuers]]
issuer     = "https://gone.test"
audience   = "stacktoken-gone"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "gone"
provider   = "generic"
"#;

fn claims(now: i64, id: &str) -> Value {
    json!({
        "iss": "https://gone.test", "aud": "stacktoken-gone", "sub": "importer", "jti": id,
        "iat": now, "exp": now + 600,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_issuer_is_refused_and_its_sessions_run_to_their_end() {
    let (folder, clock) = (Arc::new(TempDir::new().unwrap()), ManualClock::new());
    let start = async |entries: &str, stack: &str| {
        let (folder, clock) = (Arc::clone(&folder), Arc::clone(&clock));
        let mut server = TestServer::start_trusting_in(folder, clock, entries).await;
        stack.clone_into(&mut server.stack);
        server
    };
    let mut server = start(ENTRY, "").await;
    let stack = server.register("Test stack").await;
    server.stack.clone_from(&stack);
    let federation = v1::Federation {
        issuer: "gone".into(),
        rules: vec![rule(&["sub"], "importer")],
        session_for: None,
    };
    let uid = server.federated_as("importer", federation).await;
    let session = server.exchange(&claims(clock.seconds(), "a"), &uid).await;
    let secret = session.unwrap().secret;
    assert_eq!(server.inactive(&secret).await, "");
    server.stop().await.unwrap();

    let server = start("", &stack).await;
    assert!(!server.see(&uid).await.issuer_configured);
    assert_eq!(server.inactive(&secret).await, "", "its session goes on");
    let status = server.exchange(&claims(clock.seconds(), "b"), &uid).await;
    assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);
    // Nor does a workload of another issuer get in.
    let other = server
        .exchange(&job(clock.seconds(), json!({})), &uid)
        .await;
    let refused = (Code::PermissionDenied, "EXCHANGE_REFUSED".to_owned());
    assert_eq!(refusal(&other.unwrap_err()), refused);
    clock.advance(Duration::from_mins(15));
    assert_eq!(server.inactive(&secret).await, "EXPIRED");
    server.stop().await.unwrap();

    let server = start(ENTRY, &stack).await;
    assert!(server.see(&uid).await.issuer_configured);
    let session = server.exchange(&claims(clock.seconds(), "c"), &uid).await;
    assert_eq!(server.inactive(&session.unwrap().secret).await, "");
}
