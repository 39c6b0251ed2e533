//! Tests the order of the layers. If more than one layer would refuse a call, the first one does.
//! Once the call satisfies that layer, the next one refuses it.

use std::time::Duration;

use prost::Message as _;
use stacktoken::{
    grpc::pb::v1,
    server::{LAYERS, Layer},
};
use tonic::Status;

use crate::support::{
    TestServer,
    clients::reason,
    database::eventually,
    frames::{Answer, RawRequest, framed},
    issue_request,
    raw::TestCaller,
};

const ISSUE: &str = "/stacktoken.v1.TokenService/Issue";
/// How many changes a caller may make in a burst.
const BURST: u32 = 30;

/// Returns a call that `first` and every later layer would refuse, as far as the request itself
/// decides this. The test sets up the rest: the clock, the change rate and the permits.
fn violating(server: &TestServer, first: Layer) -> RawRequest {
    let violates = |layer| first <= layer;
    let path = if violates(Layer::Rpc) {
        "/stacktoken.v1.TokenService/Nothing"
    } else {
        ISSUE
    };
    let mut sending = RawRequest::to(path);
    if violates(Layer::Protocol) {
        sending = sending.header("content-type", Some("text/plain"));
    }
    if violates(Layer::HeaderSize) {
        sending = sending.header("x-note", Some(&"a".repeat(17_000)));
    }
    if violates(Layer::Encoding) {
        sending = sending.header("grpc-encoding", Some("gzip"));
    }
    // The owner has exceeded the change rate, but the admin has not.
    let jwt = match first {
        _ if violates(Layer::Credential) => "not a JWT".to_owned(),
        _ if violates(Layer::CallerKind) => TestCaller::Introspector.jwt(server),
        _ if violates(Layer::ChangeRate) => TestCaller::Owner.jwt(server),
        _ => TestCaller::Admin.jwt(server),
    };
    // The request is empty, so the handler refuses it.
    let message = framed(&v1::IssueRequest::default().encode_to_vec());
    let messages = if violates(Layer::Message) { 2 } else { 1 };
    sending.bearer(&jwt).chunks(vec![message; messages])
}

/// Returns how a layer refuses a call: the HTTP status, the reason, and a part of the text.
fn refusal(layer: Layer) -> (u16, &'static str, &'static str) {
    match layer {
        Layer::Protocol => (415, "", ""),
        Layer::HeaderSize => (200, "INVALID_FIELD", "headers of the call are larger"),
        Layer::UnreadResponses => (200, "OVERLOADED", ""),
        Layer::Rpc => (200, "RPC_UNKNOWN", ""),
        Layer::Encoding => (200, "ENCODING_UNSUPPORTED", ""),
        Layer::Clock => (200, "CLOCK_SKEW", ""),
        Layer::Credential => (200, "CREDENTIAL_INVALID", ""),
        Layer::CallerKind => (200, "ROLE_REQUIRED", ""),
        Layer::ChangeRate => (200, "RATE_LIMITED", ""),
        Layer::Message => (200, "INVALID_FIELD", "more than one message"),
        Layer::Permit => (200, "OVERLOADED", ""),
        Layer::Handler => (200, "INVALID_FIELD", "stack_api_key"),
    }
}

fn require(answer: &Answer, layer: Layer) {
    let (http, wanted, text) = refusal(layer);
    assert_eq!(answer.status, http, "{layer:?}: {answer:?}");
    if wanted.is_empty() {
        return;
    }
    let status = Status::from_header_map(&answer.headers).expect("an error");
    assert_eq!(reason(&status), wanted, "{layer:?}: {status:?}");
    assert!(status.message().contains(text), "{layer:?}: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_layer_that_a_call_violates_refuses_it() {
    assert!(
        LAYERS.is_sorted(),
        "the names are in the order of the layers"
    );
    let server = TestServer::start_with(|tuning| {
        tuning.max_calls = 1;
        tuning.deadline = Duration::from_secs(30);
        tuning.changes_burst = BURST.try_into().unwrap();
        tuning.changes_per_second = 1.try_into().unwrap();
    })
    .await;
    // This change waits for the store and so holds the only permit.
    let outside = server.outside().await;
    outside.run("BEGIN IMMEDIATE").await;
    let mut admin = server.admin().await;
    let held = issue_request(&server.stack, "waits for the store");
    let holding = tokio::spawn(async move { admin.tokens.issue(held).await });
    let told = async |sending: RawRequest| {
        let answer = sending.send(&server.address).await;
        let status = Status::from_header_map(&answer.headers);
        status.map_or_else(String::new, |status| reason(&status))
    };
    let by = |part: TestCaller| {
        RawRequest::to(ISSUE)
            .bearer(&part.jwt(&server))
            .message(&[])
    };
    assert_eq!(told(by(TestCaller::Admin)).await, "OVERLOADED");
    server.clock.set_wrong(true);
    let mut holding = Some(holding);
    for layer in LAYERS {
        match layer {
            // This layer refuses only peers that leave responses unread. `tests/floods/answers.rs`
            // tests it.
            Layer::UnreadResponses => continue,
            Layer::Credential => server.clock.set_wrong(false),
            Layer::ChangeRate => {
                // The owner exceeds the change rate only after the burst is used up.
                eventually("the owner has made too many changes", async || {
                    (told(violating(&server, layer)).await == "RATE_LIMITED").then_some(())
                })
                .await;
                continue;
            }
            Layer::Handler => {
                outside.run("COMMIT").await;
                holding.take().unwrap().await.unwrap().unwrap();
                eventually("the permit is there again", async || {
                    (told(by(TestCaller::Admin)).await != "OVERLOADED").then_some(())
                })
                .await;
            }
            _ => {}
        }
        let answer = violating(&server, layer).send(&server.address).await;
        require(&answer, layer);
    }
    server.stop().await.unwrap();
}
