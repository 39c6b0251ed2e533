//! Tests the limits on connections, which the HTTP port and the gRPC port share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::config::Tuning;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    support::{ManualClock, TestServer},
    wire::{self, RawConnection},
};

/// The time within which an admitted connection is answered. A connection that has to wait gets no
/// answer in this time.
const SOON: Duration = Duration::from_secs(1);

/// Starts a server without a stack, so that only the connections of the test are open.
async fn bare(set: impl FnOnce(&mut Tuning)) -> TestServer {
    let data_dir = Arc::new(TempDir::new().unwrap());
    TestServer::start_in(data_dir, ManualClock::new(), set).await
}

/// Connects to the HTTP port and sends a request. Returns the connection, still open, or `None` if
/// the request is not answered.
async fn over_http(server: &TestServer) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(&server.http_address).await.unwrap();
    let request = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(request).await.ok()?;
    let mut answer = [0; 64];
    let read = timeout(SOON, socket.read(&mut answer)).await.ok()?;
    read.is_ok_and(|read| read > 0).then_some(socket)
}

/// Connects to the gRPC port. Returns `None` if the server does not answer.
async fn over_grpc(server: &TestServer) -> Option<RawConnection> {
    let mut connection = RawConnection::connected(&server.address).await;
    let greeted = timeout(SOON, connection.next_frame_of(wire::SETTINGS)).await;
    greeted.ok()?.map(|_| connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_one_port_leave_a_quarter_of_the_connections_to_the_other() {
    let server = bare(|tuning| tuning.max_connections = 8).await;
    let mut http = Vec::new();
    for _ in 0..6 {
        http.push(over_http(&server).await.expect("a connection"));
    }
    let waiting = over_http(&server).await;
    assert!(waiting.is_none(), "a seventh of eight");
    let first = over_grpc(&server).await;
    let second = over_grpc(&server).await;
    assert!(first.is_some() && second.is_some());
    drop((http, first, second));

    let server = bare(|tuning| tuning.max_connections = 8).await;
    let mut grpc = Vec::new();
    for _ in 0..6 {
        grpc.push(over_grpc(&server).await.expect("a connection"));
    }
    assert!(over_grpc(&server).await.is_none(), "a seventh of eight");
    let first = over_http(&server).await;
    let second = over_http(&server).await;
    assert!(first.is_some() && second.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_its_share_on_each_port() {
    let server = bare(|tuning| tuning.max_connections_per_address = 2).await;
    let http = [over_http(&server).await, over_http(&server).await];
    assert!(http.iter().all(Option::is_some));
    assert!(over_http(&server).await.is_none());
    let grpc = [over_grpc(&server).await, over_grpc(&server).await];
    assert!(grpc.iter().all(Option::is_some));
}

const AGE: Duration = Duration::from_millis(300);

/// Sends a request on a connection that is kept alive. Returns the head of the answer.
async fn ask(socket: &mut TcpStream) -> String {
    let request = b"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nhost: x\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = socket.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "closed without an answer");
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.split("\r\n\r\n").next().unwrap().to_lowercase()
}

fn is_last(head: &str) -> bool {
    head.contains("\r\nconnection: close")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_answers_once_more_and_says_that_it_ends() {
    let server = bare(|tuning| tuning.max_connection_age = AGE).await;
    let mut socket = TcpStream::connect(&server.http_address).await.unwrap();
    assert!(!is_last(&ask(&mut socket).await));
    // Idle when its age ends.
    tokio::time::sleep(2 * AGE).await;
    assert!(is_last(&ask(&mut socket).await));
    assert_eq!(socket.read(&mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_replaced_and_no_request_fails() {
    let server = bare(|tuning| tuning.max_connection_age = AGE).await;
    let (began, mut connections) = (Instant::now(), 0);
    while began.elapsed() < 5 * AGE {
        connections += 1;
        let mut socket = TcpStream::connect(&server.http_address).await.unwrap();
        while !is_last(&ask(&mut socket).await) {}
        assert_eq!(socket.read(&mut [0; 64]).await.unwrap(), 0);
    }
    assert!((3..=8).contains(&connections), "{connections} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_without_requests_is_closed() {
    let server = bare(|tuning| {
        tuning.max_connection_age = AGE;
        tuning.max_connection_age_grace = AGE;
    })
    .await;
    let mut socket = TcpStream::connect(&server.http_address).await.unwrap();
    ask(&mut socket).await;
    let closed = timeout(20 * AGE, socket.read(&mut [0; 64])).await;
    assert_eq!(closed.expect("closed").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_server_announces_the_end_of_idle_connections() {
    let server = bare(|tuning| tuning.drain_delay = Some(Duration::from_secs(2))).await;
    let mut used = TcpStream::connect(&server.http_address).await.unwrap();
    let mut unused = TcpStream::connect(&server.http_address).await.unwrap();
    for socket in [&mut used, &mut unused] {
        assert!(!is_last(&ask(socket).await));
    }
    let address = server.http_address.clone();
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(is_last(&ask(&mut used).await));
    assert_eq!(used.read(&mut [0; 64]).await.unwrap(), 0);
    let mut new = TcpStream::connect(&address).await.unwrap();
    assert!(is_last(&ask(&mut new).await));
    let early = timeout(AGE, unused.read(&mut [0; 64])).await;
    assert!(early.is_err(), "closed before the server stops accepting");
    assert_eq!(unused.read(&mut [0; 64]).await.unwrap(), 0);
    stopping.await.unwrap().unwrap();
}
