//! Tests floods of sockets that are silent, slow or idle, or that outnumber the file descriptors.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{frames, honest::FloodedServer, program::run_by};

const SLOW: usize = 2_000;
const IDLE: usize = 5_000;
/// The maximum time until the server closes a silent socket.
const REAPED: Duration = Duration::from_secs(30);

/// Raises the limit of open files of this process to the maximum.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

async fn connect(address: &str, greeting: &[u8]) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    socket.write_all(greeting).await.ok()?;
    Some(socket)
}

/// Reads until the other side has closed the socket.
async fn closed(mut socket: TcpStream) {
    let mut heard = [0; 1024];
    while matches!(socket.read(&mut heard).await, Ok(count) if count > 0) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_connections_are_closed() {
    raise_files();
    // The limit per address is raised above the number of connections here, so that the server
    // keeps all of them for a while.
    let mut flooded = FloodedServer::start(&["--max-connections-per-address", "10000"]).await;
    let address = flooded.address();
    let began = Instant::now();
    let mut waiting = JoinSet::new();
    for number in 0..SLOW {
        let said = match number % 3 {
            0 => &[][..],
            1 => &frames::PREFACE[..10],
            // This HTTP/1 client never sends its second line.
            _ => b"GET / HTTP/1.1\r\n",
        };
        let Some(socket) = connect(&address, said).await else {
            continue;
        };
        waiting.spawn(closed(socket));
    }
    assert_eq!(waiting.len(), SLOW);
    flooded.assert_withstands("slow sockets").await;
    while waiting.join_next().await.is_some() {}
    let took = began.elapsed();
    println!("slow sockets: all {SLOW} closed after {took:?}");
    assert!(
        took <= REAPED,
        "the last slow socket was closed after {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_a_second_is_slow_too() {
    let flooded = FloodedServer::start(&[]).await;
    let mut socket = TcpStream::connect(flooded.address()).await.unwrap();
    let began = Instant::now();
    for byte in frames::PREFACE {
        let mut heard = [0; 1];
        let read = tokio::time::timeout(Duration::from_secs(1), socket.read(&mut heard));
        if matches!(read.await, Ok(Ok(0) | Err(_))) || socket.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "closed after {took:?}");
}

/// With the default limits, one address may have some connections, and any further connection is
/// closed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_cost_little() {
    raise_files();
    let mut flooded = FloodedServer::start(&[]).await;
    let greeting = [
        frames::PREFACE,
        &frames::settings(),
        &frames::settings_ack(),
    ]
    .concat();
    let mut idle = Vec::with_capacity(IDLE);
    let address = flooded.address();
    for _ in 0..IDLE {
        idle.extend(connect(&address, &greeting).await);
    }
    flooded.assert_withstands("idle connections").await;
    assert!(idle.len() > 1_000, "only {} idle connections", idle.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_gets_its_share_only() {
    let mut flooded = FloodedServer::start(&["--max-connections-per-address", "20"]).await;
    let address = flooded.address();
    let mut closing = JoinSet::new();
    for _ in 0..100 {
        let socket = connect(&address, frames::PREFACE).await.unwrap();
        closing.spawn(closed(socket));
    }
    // Three of the twenty connections that one address may have belong to the test's own clients.
    let until = Instant::now() + Duration::from_secs(3);
    let mut refused = 0;
    while let Ok(Some(_)) = tokio::time::timeout_at(until.into(), closing.join_next()).await {
        refused += 1;
    }
    assert!((80..100).contains(&refused), "{refused} of 100 were closed");
    flooded.assert_withstands("a full address").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_files_keep_the_program_alive() {
    raise_files();
    let mut flooded = FloodedServer::start_as(|command| {
        run_by(command, &["prlimit", "--nofile=256:256"]);
    })
    .await;
    let greeting = [
        frames::PREFACE,
        &frames::settings(),
        &frames::settings_ack(),
    ]
    .concat();
    let address = flooded.address();
    let mut connecting = JoinSet::new();
    for _ in 0..600 {
        let (address, greeting) = (address.clone(), greeting.clone());
        // Connections beyond the limit wait in the kernel, which accepts no more when its queue is
        // full.
        connecting.spawn(async move {
            let connected = connect(&address, &greeting);
            tokio::time::timeout(Duration::from_secs(5), connected).await
        });
    }
    let attempts = connecting.join_all().await;
    let many: Vec<_> = attempts.into_iter().flat_map(Result::ok).collect();
    assert!(many.len() > 150, "only {} connections", many.len());
    flooded.assert_withstands("256 files").await;
    drop(many);
    let began = Instant::now();
    let mut owner = flooded.dev.client("owner_jwt").await;
    let list = stacktoken::grpc::pb::v1::ListRequest {
        stack_api_key: flooded.dev.get("stack_api_key").into(),
        ..Default::default()
    };
    owner.tokens.list(list).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}
