//! Tests clients that send requests and never read the responses: large responses with a
//! credential, many small ones without. The clients connect from a different address than the
//! well-behaved client, so that only their address is limited.

use std::{net::SocketAddr, time::Duration};

use prost::Message as _;
use stacktoken::grpc::pb::v1::BatchIntrospectRequest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    frames,
    honest::FloodedServer,
    program::{Dev, scrape},
};

/// A call with an empty request and a response of about 10 KiB.
const ACTIONS: &str = "/stacktoken.v1.ActionService/ListActions";
const BATCH: &str = "/stacktoken.v1.IntrospectionService/BatchIntrospect";
/// The number of questions in a batch, small enough that all batches of a connection fit into its
/// receive window.
const QUESTIONS: usize = 2;
/// The receive window of a new connection, in bytes (RFC 9113 §6.9.2).
const RECEIVE_WINDOW: usize = 65_535;
const CHECK: &str = "/grpc.health.v1.Health/Check";
const ATTACKER: &str = "127.0.0.2:0";
const CONNECTIONS: u32 = 14;
/// The number of calls on each connection.
const CALLS: u32 = 250;

/// Returns how many calls were refused as OVERLOADED.
async fn overloaded(dev: &Dev) -> u64 {
    let (_, metrics) = scrape(dev, "").await;
    let counted = "stacktoken_errors_total{reason=\"OVERLOADED\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(counted));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Opens a connection and sends these calls without waiting for responses. The first call is sent a
/// little earlier, so that the server knows the credential of the connection when the other calls
/// arrive.
async fn open_connection(address: &str, settings: &[u8], calls: &[Vec<u8>]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ATTACKER.parse().unwrap()).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let mut socket = socket.connect(address).await.unwrap();
    let (first, rest) = calls.split_first().unwrap();
    let greeting = [frames::PREFACE, settings, &frames::settings_ack(), first].concat();
    socket.write_all(&greeting).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rest = rest.concat();
    let writing = tokio::time::timeout(Duration::from_secs(2), socket.write_all(&rest));
    let _ = writing.await;
    let mut heard = vec![0; 1 << 20];
    let hearing = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut heard));
    let _ = hearing.await;
    socket
}

/// Opens connections with an empty window, makes these calls on each and reads no response. Asserts
/// that meanwhile other clients are served, memory stays bounded, and calls beyond the limit are
/// refused.
async fn flood_unread(
    flooded: &mut FloodedServer,
    flood: &str,
    message: &[u8],
    call: impl Fn(u32) -> Vec<u8>,
) {
    let settings = frames::settings_without_window();
    let calls = (0..CALLS).map(|index| {
        let stream = 1 + 2 * index;
        [call(stream), frames::message(stream, message)].concat()
    });
    let calls: Vec<_> = calls.collect();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(open_connection(&flooded.address(), &settings, &calls).await);
    }
    flooded.assert_withstands(flood).await;
    let refused = overloaded(&flooded.dev).await;
    assert!(refused >= 500, "only {refused} of 3,500 calls were refused");
}

/// The calls have a credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_without_a_window_are_not_kept_without_end() {
    let mut flooded = FloodedServer::start(&[]).await;
    let jwt = flooded.dev.get("stranger_jwt").to_owned();
    let flood = "3,500 answers of 10 KiB without a window";
    flood_unread(&mut flooded, flood, &[], |stream| {
        frames::call_as(stream, ACTIONS, &jwt)
    })
    .await;
}

/// The calls have no credential.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_answers_without_a_window_are_not_kept_without_end() {
    let mut flooded = FloodedServer::start(&[]).await;
    let flood = "3,500 answers of health without a window";
    flood_unread(&mut flooded, flood, &[], |stream| {
        frames::call(stream, CHECK)
    })
    .await;
}

/// The answers come from the cache and are computed on the thread of their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_verdicts_without_a_window_are_not_kept_without_end() {
    let mut flooded = FloodedServer::start(&[]).await;
    let jwt = flooded.dev.get("service_jwt").to_owned();
    let batch = BatchIntrospectRequest {
        questions: vec![flooded.question(); QUESTIONS],
        ..Default::default()
    };
    let batch = batch.encode_to_vec();
    let all = (CALLS as usize) * (batch.len() + 5);
    assert!(all < RECEIVE_WINDOW, "{all} bytes exceed the window");
    let flood = "3,500 batches of cached verdicts without a window";
    flood_unread(&mut flooded, flood, &batch, |stream| {
        frames::call_as(stream, BATCH, &jwt)
    })
    .await;
}
