//! Tests that `Check` returns an error and never a decision if the server cannot decide (R13).
//! Envoy's failure mode then decides about the request.

use std::sync::Arc;

use tonic::Code;

use super::{ENTRIES, UNKNOWN};
use crate::support::{ManualClock, TestServer, clients::reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_read_is_an_error() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await.secret;
    let outside = server.outside().await;
    outside.corrupt().await;
    for secret in [token.as_str(), UNKNOWN] {
        let asked = server.request("GET", ENTRIES, secret);
        let status = server.check_as(server.envoy(), asked).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    }
    let exposed = server.metrics().await;
    let line = "stacktoken_checks_total{outcome=\"UNDECIDED\",reason=\"STORE_UNAVAILABLE\"} 2";
    assert!(exposed.contains(line), "{exposed}");
    // A request that is denied without a look into the store is also denied during an outage.
    for (asked, wanted) in [
        (
            server.request("GET", "/nowhere", &token),
            "403 ROUTE_UNKNOWN",
        ),
        (server.request("GET", ENTRIES, "junk"), "401 NOT_RECOGNIZED"),
    ] {
        assert_eq!(server.outcome_of(asked).await, wanted);
    }
    outside.restore().await;
    let asked = server.request("GET", ENTRIES, &token);
    assert_eq!(server.outcome_of(asked).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_there_is_room_for_are_an_error() {
    let folder = Arc::new(tempfile::TempDir::new().unwrap());
    let server = TestServer::start_in(folder, ManualClock::new(), |tuning| tuning.max_calls = 0);
    let server = server.await;
    let asked = server.request("GET", ENTRIES, UNKNOWN);
    let status = server.check_as(server.envoy(), asked).await.unwrap_err();
    assert_eq!(reason(&status), "OVERLOADED");
}
