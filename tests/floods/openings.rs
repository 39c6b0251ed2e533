//! Tests attacks without a credential, on unauthenticated RPCs and on the admin port.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{frames, honest::FloodedServer};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// A request for `{ file_containing_symbol: "stacktoken.v1.TokenService" }`, which has a large
/// response.
const SYMBOL: &[u8] = b"\x22\x1astacktoken.v1.TokenService";

/// Opens a connection, then sends `settings` and the frames in `said`. Reads the responses only if
/// `read` is set.
async fn open_connection(address: &str, settings: Vec<u8>, said: Vec<u8>, read: bool) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let greeting = [frames::PREFACE, &settings, &frames::settings_ack()].concat();
    socket.write_all(&greeting).await.unwrap();
    // The write may fail or hang, because the server may have closed the connection.
    let writing = tokio::time::timeout(Duration::from_secs(2), socket.write_all(&said));
    let _ = writing.await;
    if read {
        let mut heard = vec![0; 1 << 20];
        let hearing = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut heard));
        let _ = hearing.await;
    }
    socket
}

/// Each stream declares a message of 4 MB and sends everything but its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_messages_are_not_kept() {
    for path in [CHECK, REFLECTION] {
        let mut flooded = FloodedServer::start(&[]).await;
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut said = Vec::new();
            for stream in (0..128).map(|at| 1 + 2 * at) {
                said.extend(frames::call(stream, path));
                said.extend(frames::data(stream, &[0, 0, 0x3d, 0x09, 0]));
                let part = frames::data(stream, &[b'a'; 15_000]);
                said.extend(std::iter::repeat_n(part, 4).flatten());
            }
            held.push(open_connection(&flooded.address(), frames::settings(), said, true).await);
        }
        flooded
            .assert_withstands(&format!("4 MB announced to {path}"))
            .await;
    }
}

/// Every stream calls Watch of the health service, and the client reads no responses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_limited() {
    let mut flooded = FloodedServer::start(&[]).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let said = (0..250).flat_map(|at| {
            let stream = 1 + 2 * at;
            [frames::call(stream, WATCH), frames::message(stream, &[])].concat()
        });
        held.push(
            open_connection(&flooded.address(), frames::settings(), said.collect(), true).await,
        );
    }
    flooded.assert_withstands("10,000 watches").await;
    // A health probe must still be answered.
    let mut health =
        tonic_health::pb::health_client::HealthClient::new(flooded.dev.channel().await);
    let asked = tonic_health::pb::HealthCheckRequest::default();
    health.check(asked).await.expect("the probe is answered");
}

/// The client's HTTP/2 flow-control window is 0, so large reflection responses queue up in the
/// server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_of_reflection_are_limited() {
    let mut flooded = FloodedServer::start(&[]).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let said = (0..250).flat_map(|at| {
            let stream = 1 + 2 * at;
            let asked = frames::message(stream, SYMBOL);
            [frames::call(stream, REFLECTION), asked].concat()
        });
        let settings = frames::settings_without_window();
        held.push(open_connection(&flooded.address(), settings, said.collect(), true).await);
    }
    flooded.assert_withstands("unread reflection").await;
}

/// Clients send incomplete requests to the admin port from more addresses than are needed to fill
/// it, and reconnect whenever they are disconnected. Probes must still be answered at once, and
/// calls must be unaffected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_while_the_admin_port_is_besieged() {
    let mut flooded = FloodedServer::start(&[]).await;
    let address = flooded.dev.get("admin_address").to_owned();
    let mut held = tokio::task::JoinSet::new();
    for number in 0..160 {
        let to: std::net::SocketAddr = address.parse().unwrap();
        held.spawn(async move {
            loop {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                let from = format!("127.0.0.{}:0", 2 + number % 8);
                socket.bind(from.parse().unwrap()).unwrap();
                if let Ok(mut socket) = socket.connect(to).await {
                    let _ = socket.write_all(b"GET /livez HTTP/1.1\r\n").await;
                    let _ = socket.read(&mut [0; 64]).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut answered = 0;
    for _ in 0..30 {
        answered += usize::from(is_open(&address).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answered >= 29, "only {answered} of 30 probes were answered");
    flooded
        .assert_withstands("half requests to the admin port")
        .await;
}

async fn is_open(address: &str) -> bool {
    let asked = async {
        let mut socket = TcpStream::connect(address).await.ok()?;
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.ok()?;
        Some(text.contains("200 OK"))
    };
    let answered = tokio::time::timeout(Duration::from_secs(1), asked).await;
    answered.ok().flatten() == Some(true)
}
