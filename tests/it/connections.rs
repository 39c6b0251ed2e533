//! Tests that connections are closed gracefully when they reach their maximum age, so that clients
//! reconnect and the load spreads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    TestServer,
    raw::{Metadata, call, outcome},
};

const AGE: Duration = Duration::from_millis(200);

/// Returns a channel through a proxy, and the number of connections that the proxy has counted.
async fn counted(server: &TestServer) -> (Channel, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap(), server.address.clone());
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::SeqCst);
            let mut server = TcpStream::connect(&to).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (endpoint.connect().await.unwrap(), count)
}

#[tokio::test]
async fn headers_beyond_the_limit_get_their_own_error() {
    let server = TestServer::start().await;
    let sent = Metadata::bearer(&server.issuer.service("content-api", server.clock.seconds()));
    let path = "/stacktoken.v1.ActionService/ListActions";
    let with = async |name, size| {
        let sent = sent.clone().and(name, "a".repeat(size));
        outcome(&call(&server.channel().await, path, sent, Vec::new()).await)
    };
    let ok = (Code::Ok, String::new());
    let refused = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    assert_eq!(with("x-note", 14_000).await, ok);
    assert_eq!(with("x-note", 17_000).await, refused);
    assert_eq!(with("x-note", 60_000).await, refused);
    // `tracestate` may come from a client behind a proxy, so the server drops an oversized one and
    // does not refuse the call.
    assert_eq!(with("tracestate", 20_000).await, ok);
    assert_eq!(with("tracestate", 60_000).await, ok);
}

/// Returns whether the call was cancelled before it was sent, or was refused by a GOAWAY that
/// excludes its stream (RFC 9113 §6.8). In both cases a retry is safe.
fn is_unsent(status: &Status) -> bool {
    let told = format!("{status:?}");
    let unsent = status.code() == Code::Cancelled && told.contains("operation was canceled");
    unsent || told.contains("GoAway(b\"\", NO_ERROR, Remote)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_replaced_and_no_call_fails() {
    let server = TestServer::start_with(|tuning| tuning.max_connection_age = AGE).await;
    let (channel, connections) = counted(&server).await;
    let mut health = HealthClient::new(channel);
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < 10 * AGE {
        match health.check(HealthCheckRequest::default()).await {
            Ok(_) => calls += 1,
            // If a GOAWAY arrives when tonic's client has accepted a call but not sent it yet, the
            // client cancels the call. Other clients send such a call on the next connection.
            Err(status) if is_unsent(&status) => {}
            Err(status) => panic!("a call at the age limit failed: {status:?}"),
        }
    }
    let connections = connections.load(Ordering::SeqCst);
    // The maximum age of each connection is varied by up to a tenth.
    assert!((5..=13).contains(&connections), "{connections} connections");
    assert!(calls > 10 * connections, "{calls} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_on_an_old_connection_has_the_grace_and_no_more() {
    let grace = Duration::from_millis(600);
    let server = TestServer::start_with(|tuning| {
        tuning.max_connection_age = AGE;
        tuning.max_connection_age_grace = grace;
    })
    .await;
    let mut health = HealthClient::new(server.channel().await);
    let began = Instant::now();
    let watch = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let end = watch.message().await;
    assert!(end.is_err(), "cut off: {end:?}");
    let took = began.elapsed();
    assert!(took > AGE + grace / 2, "{took:?}");
    assert!(took < 10 * (AGE + grace), "{took:?}");
}

#[tokio::test]
async fn refused_connections_are_counted_from_zero_for_every_cause() {
    let server = TestServer::start().await;
    let metrics = server.metrics().await;
    for why in ["address", "accept", "handshake", "slow", "displaced"] {
        let series = format!("stacktoken_connections_refused_total{{why=\"{why}\"}} 0");
        assert!(metrics.contains(&series), "{why}: {metrics}");
    }
}
