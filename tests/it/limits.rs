//! Tests the limits of a server: how a value other than the default differs in effect from the
//! default.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::config::Tuning;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;

use crate::{
    support::{
        ManualClock, TestServer,
        database::eventually,
        raw::{Metadata, call, outcome},
        requests::list_request,
    },
    wire::{self, Frame, RawConnection},
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// A request for `{ file_containing_symbol: "stacktoken.v1.TokenService" }`, which has a long
/// response.
const SYMBOL: &[u8] = b"\x22\x1astacktoken.v1.TokenService";

/// Starts a server without a stack, so that only the connections of the test are open.
async fn bare(set: impl FnOnce(&mut Tuning)) -> TestServer {
    let data_dir = Arc::new(TempDir::new().unwrap());
    TestServer::start_in(data_dir, ManualClock::new(), set).await
}

/// Returns the outcome of a `ListActions` call whose message has `bytes` bytes of padding.
async fn with_message_of(server: &TestServer, bytes: u8) -> (Code, String) {
    let sent = Metadata::bearer(&server.issuer.service("content-api", server.clock.seconds()));
    // The padding is an unknown field, which the server ignores.
    let mut message = vec![0xfa, 0x01, bytes];
    message.resize(3 + usize::from(bytes), 0);
    let path = "/stacktoken.v1.ActionService/ListActions";
    outcome(&call(&server.channel().await, path, sent, message).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_the_operator_allows_is_refused() {
    let refused = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    let ok = (Code::Ok, String::new());
    let server = bare(|tuning| tuning.max_request_bytes = 64).await;
    assert_eq!(with_message_of(&server, 60).await, ok);
    assert_eq!(with_message_of(&server, 64).await, refused);
    let usual = bare(|_| {}).await;
    assert_eq!(with_message_of(&usual, 64).await, ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_larger_than_the_operator_allows_is_not_sent() {
    let server = TestServer::start_with(|tuning| tuning.max_response_bytes = 600).await;
    let mut owner = server.owner().await;
    let mut list = async || owner.tokens.list(list_request(&server.stack)).await;
    list().await.unwrap();
    for at in 0..5 {
        server.token(&format!("{at:050}")).await;
    }
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_larger_than_the_operator_allows_are_refused() {
    let server = bare(|tuning| tuning.max_header_bytes = 2048).await;
    let sent = Metadata::bearer(&server.issuer.service("content-api", server.clock.seconds()));
    let path = "/stacktoken.v1.ActionService/ListActions";
    let with = async |size| {
        let sent = sent.clone().and("x-note", "a".repeat(size));
        outcome(&call(&server.channel().await, path, sent, Vec::new()).await)
    };
    assert_eq!(with(10).await, (Code::Ok, String::new()));
    let refused = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    assert_eq!(with(2048).await, refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_the_limit_waits_until_another_ends() {
    let server = bare(|tuning| tuning.max_connections = 2).await;
    let first = RawConnection::connected(&server.address).await;
    let mut second = RawConnection::connected(&server.address).await;
    assert!(second.next_frame_of(wire::SETTINGS).await.is_some());
    let mut third = RawConnection::connected(&server.address).await;
    assert!(third.is_quiet_for(Duration::from_millis(500)).await);
    drop(first);
    assert!(third.next_frame_of(wire::SETTINGS).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_announces_its_limit_of_concurrent_streams() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let server = bare(|tuning| tuning.max_streams = 3).await;
    let mut wire = RawConnection::connected(&server.address).await;
    let settings = wire.next_frame_of(wire::SETTINGS).await.unwrap();
    assert_eq!(settings.setting(MAX_CONCURRENT_STREAMS), Some(3));
    for stream in [1, 3, 5, 7] {
        wire.send(&wire::call(stream, HEALTH)).await;
    }
    // REFUSED_STREAM tells the client that the request was not processed.
    let refused = wire.next_frame_of(wire::RESET).await.unwrap();
    assert_eq!(refused.payload, 7u32.to_be_bytes());
}

/// Returns whether the server closes the connection or sends GOAWAY after it had to reset `resets`
/// streams.
async fn is_sent_goaway(server: &TestServer, resets: u32) -> bool {
    let mut wire = RawConnection::connected(&server.address).await;
    for stream in (0..resets).map(|at| 1 + 2 * at) {
        wire.send(&wire::headers(stream, wire::END_HEADERS)).await;
        wire.send(&wire::window_update(stream, 0x7fff_ffff)).await;
    }
    wire.send(&wire::ping()).await;
    loop {
        match wire.next_frame().await {
            None
            | Some(Frame {
                kind: wire::GO_AWAY,
                ..
            }) => return true,
            Some(Frame {
                kind: wire::PING, ..
            }) => return false,
            Some(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_too_many_reset_streams_is_sent_goaway() {
    let server = bare(|tuning| tuning.max_resets = 5).await;
    assert!(!is_sent_goaway(&server, 3).await);
    assert!(is_sent_goaway(&server, 20).await);
    assert!(!is_sent_goaway(&bare(|_| {}).await, 20).await);
}

/// A server that answers a stream before its message has arrived usually resets the stream. A
/// client that sends messages on more than a few reset streams per second is considered faulty, and
/// its connection is closed. So a refusal must not reset the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_again_and_again_keeps_its_connection() {
    let server = bare(|_| {}).await;
    let mut wire = RawConnection::connected(&server.address).await;
    for stream in (0..20).map(|at| 1 + 2 * at) {
        wire.send(&wire::headers(stream, wire::END_HEADERS)).await;
        // The call has no credential, so the server refuses it before its message arrives.
        tokio::time::sleep(Duration::from_millis(5)).await;
        wire.send(&wire::message(stream, b"")).await;
        wire.expect_frame(wire::HEADERS).await;
    }
    wire.send(&wire::ping()).await;
    wire.expect_frame(wire::PING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_begin_in_time_is_hung_up_on() {
    let server = bare(|tuning| tuning.handshake_timeout = Duration::from_millis(200)).await;
    let mut silent = RawConnection::silent(&server.address).await;
    let began = Instant::now();
    assert!(silent.next_frame_of(wire::SETTINGS).await.is_some());
    assert!(silent.next_frame_of(wire::SETTINGS).await.is_none());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(190), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Makes the server ping idle clients soon, and gives them little time to answer.
fn ping_often(tuning: &mut Tuning) {
    tuning.keepalive_interval = Duration::from_millis(200);
    tuning.keepalive_timeout = Duration::from_millis(300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_hung_up_on_and_one_that_does_stays() {
    let server = bare(ping_often).await;
    let mut dead = RawConnection::connected(&server.address).await;
    let began = Instant::now();
    assert!(
        dead.next_frame_of(wire::PING).await.is_some(),
        "the server sends no ping"
    );
    assert!(
        dead.next_frame_of(wire::PING).await.is_none(),
        "the server sends a second ping"
    );
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "closed after {took:?}");
    let mut alive = RawConnection::connected(&server.address).await;
    for _ in 0..5 {
        let asked = alive
            .next_frame_of(wire::PING)
            .await
            .expect("the connection stays open");
        let answer = wire::frame(wire::PING, wire::ACK, 0, &asked.payload);
        alive.send(&answer).await;
    }
}

/// The unread data fills every buffer, so that no ping gets through. Only the kernel can detect
/// that the client acknowledges no data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let server = bare(ping_often).await;
    let open = async || server.metric("stacktoken_connections").await;
    let mut wire = RawConnection::narrow(&server.address).await;
    let all = i32::MAX.to_be_bytes();
    let greedy = wire::frame(wire::SETTINGS, 0, 0, &[&[0, 4][..], &all].concat());
    let more = wire::window_update(0, (i32::MAX - 65_535).unsigned_abs());
    wire.send(&[wire::PREFACE, &greedy, &wire::settings_ack(), &more].concat())
        .await;
    for stream in (0..250).map(|at| 1 + 2 * at) {
        let asked = wire::message(stream, SYMBOL);
        wire.send(&[wire::call(stream, REFLECTION), asked].concat())
            .await;
    }
    assert_eq!(open().await, 1.0);
    eventually("the connection is closed", async || {
        (open().await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_holds_no_more_tokens_than_configured() {
    let server = TestServer::start_with(|tuning| tuning.cache_entries = 10).await;
    server.set_limit(100).await;
    let mut tokens = Vec::new();
    for at in 0..40 {
        tokens.push(server.token(&format!("token {at}")).await);
    }
    for _ in 0..2 {
        for token in &tokens {
            assert_eq!(server.verdict(&token.secret).await, "OK");
        }
    }
    // The gauge is updated only by a health probe.
    let remembered = eventually("some are cached", async || {
        let remembered = server.metric("stacktoken_cache_entries").await;
        (remembered > 0.0).then_some(remembered)
    })
    .await;
    assert!(remembered <= 20.0, "{remembered} are cached");
    // If the cache could hold all tokens, each token would have two misses: the first lookup, and
    // the one after its first use.
    let misses = server.metric("stacktoken_cache_misses_total").await;
    assert!(misses > 60.0, "{misses} misses");
}

/// Starts a health call and never sends its message.
async fn unfinished_call(server: &TestServer) -> RawConnection {
    let mut wire = RawConnection::connected(&server.address).await;
    wire.send(&wire::call(1, HEALTH)).await;
    wire.send(&wire::ping()).await;
    wire.next_frame_of(wire::PING).await.unwrap();
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_work_have_the_drain_grace_and_no_more() {
    let grace = Duration::from_millis(700);
    let server = bare(|tuning| {
        tuning.drain_grace = grace;
        tuning.deadline = Duration::from_secs(60);
    })
    .await;
    let mut wire = unfinished_call(&server).await;
    let began = Instant::now();
    server.stop().await.unwrap();
    let took = began.elapsed();
    assert!(took >= grace, "{took:?}");
    assert!(took < grace + Duration::from_secs(5), "{took:?}");
    while wire.next_frame().await.is_some() {}
}

/// Opens streams from an address of the loopback network. Returns how many of them the server
/// accepts, and the connection that holds them.
async fn begun_from(
    server: &TestServer,
    ip: &str,
    path: &str,
    streams: u32,
) -> (usize, RawConnection) {
    let mut wire = RawConnection::connected_from(ip, &server.address).await;
    let mut begun = 0;
    for stream in (0..streams).map(|at| 1 + 2 * at) {
        wire.send(&wire::call(stream, path)).await;
        if path == WATCH {
            wire.send(&wire::message(stream, &[])).await;
        }
        // A refusal ends the stream with its headers.
        let head = wire.next_frame_of(wire::HEADERS).await.unwrap();
        begun += usize::from(head.flags & wire::END_STREAM == 0);
    }
    (begun, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_never_has_more_than_its_share_of_streams_that_anybody_may_open() {
    let server = bare(|tuning| {
        tuning.max_watches = 16;
        tuning.client_limits.max_watches_per_address = Some(3);
    })
    .await;
    for (path, share) in [(REFLECTION, 8), (WATCH, 3)] {
        let mut held = Vec::new();
        for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] {
            let (begun, wire) = begun_from(&server, ip, path, 12).await;
            assert_eq!(begun, share, "{path} from {ip}");
            // A second connection from the same address does not raise the limit.
            let (begun, _) = begun_from(&server, ip, path, 1).await;
            assert_eq!(begun, 0, "{path} again from {ip}");
            held.push(wire);
        }
        drop(held.remove(0));
        eventually("its permits are free again", async || {
            let (begun, _) = begun_from(&server, "127.0.0.1", path, 1).await;
            (begun == 1).then_some(())
        })
        .await;
    }
}

/// Starts calls and never sends their messages. Returns how many of them the server refuses.
async fn refused_of(server: &TestServer, wire: &mut RawConnection, calls: u32) -> usize {
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let credential = wire::literal(0x00, "authorization", &format!("Bearer {jwt}"));
    for stream in (0..calls).map(|at| 1 + 2 * at) {
        let head = [wire::head(), credential.clone()].concat();
        let call = wire::frame(wire::HEADERS, wire::END_HEADERS, stream, &head);
        wire.send(&call).await;
    }
    let mut refused = 0;
    while let Ok(Some(frame)) = timeout(Duration::from_millis(500), wire.next_frame()).await {
        refused += usize::from(frame.kind == wire::HEADERS);
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_their_message_are_limited_by_connection_and_by_address() {
    let server = bare(|tuning| {
        tuning.client_limits.max_waiting_per_connection = 3;
        tuning.client_limits.max_waiting_per_address = 4;
    })
    .await;
    let mut first = RawConnection::connected(&server.address).await;
    assert_eq!(refused_of(&server, &mut first, 5).await, 2);
    let mut second = RawConnection::connected(&server.address).await;
    assert_eq!(refused_of(&server, &mut second, 3).await, 2);
    let usual = bare(|_| {}).await;
    let mut wire = RawConnection::connected(&usual.address).await;
    assert_eq!(refused_of(&usual, &mut wire, 5).await, 0);
}
