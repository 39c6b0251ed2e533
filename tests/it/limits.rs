//! The limits of a server, each set to another value than its default, and its effect beside
//! what the default does.

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
        raw::{Sent, call, outcome},
        requests::list_request,
    },
    wire::{self, Frame, Wire},
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// `{ file_containing_symbol: "stacktoken.v1.TokenService" }`, which is answered at length.
const SYMBOL: &[u8] = b"\x22\x1astacktoken.v1.TokenService";

/// A server without a stack: nothing but the test's own connections is open.
async fn bare(set: impl FnOnce(&mut Tuning)) -> TestServer {
    let data_dir = Arc::new(TempDir::new().unwrap());
    TestServer::start_in(data_dir, ManualClock::new(), set).await
}

/// How a call of ListActions ends whose message has so many bytes that mean nothing.
async fn with_message_of(server: &TestServer, bytes: u8) -> (Code, String) {
    let sent = Sent::bearer(&server.issuer.service("content-api", server.clock.seconds()));
    // An unknown field, which is passed over.
    let mut message = vec![0xfa, 0x01, bytes];
    message.resize(3 + usize::from(bytes), 0);
    let path = "/stacktoken.v1.IntrospectionService/ListActions";
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
    let sent = Sent::bearer(&server.issuer.service("content-api", server.clock.seconds()));
    let path = "/stacktoken.v1.IntrospectionService/ListActions";
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
    let first = Wire::greeted(&server.address).await;
    let mut second = Wire::greeted(&server.address).await;
    assert!(second.hear_a(wire::SETTINGS).await.is_some());
    let mut third = Wire::greeted(&server.address).await;
    assert!(third.is_quiet_for(Duration::from_millis(500)).await);
    drop(first);
    assert!(third.hear_a(wire::SETTINGS).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_how_many_calls_it_may_have_open() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let server = bare(|tuning| tuning.max_streams = 3).await;
    let mut wire = Wire::greeted(&server.address).await;
    let settings = wire.hear_a(wire::SETTINGS).await.unwrap();
    assert_eq!(settings.setting(MAX_CONCURRENT_STREAMS), Some(3));
    for stream in [1, 3, 5, 7] {
        wire.say(&wire::call(stream, HEALTH)).await;
    }
    // REFUSED_STREAM: it was not looked at.
    let refused = wire.hear_a(wire::RESET).await.unwrap();
    assert_eq!(refused.payload, 7u32.to_be_bytes());
}

/// Whether a connection on which the server had to reset so many streams was told to go.
async fn is_told_to_go(server: &TestServer, resets: u32) -> bool {
    let mut wire = Wire::greeted(&server.address).await;
    for stream in (0..resets).map(|at| 1 + 2 * at) {
        wire.say(&wire::headers(stream, wire::END_HEADERS)).await;
        wire.say(&wire::window_update(stream, 0x7fff_ffff)).await;
    }
    wire.say(&wire::ping()).await;
    loop {
        match wire.hear().await {
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
async fn a_client_that_has_too_many_streams_reset_is_told_to_go() {
    let server = bare(|tuning| tuning.max_resets = 5).await;
    assert!(!is_told_to_go(&server, 3).await);
    assert!(is_told_to_go(&server, 20).await);
    assert!(!is_told_to_go(&bare(|_| {}).await, 20).await);
}

/// A stream that is answered before its message has to be reset, and messages of more than a few
/// of those a second count as faults of the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_refused_again_and_again_keeps_its_connection() {
    let server = bare(|_| {}).await;
    let mut wire = Wire::greeted(&server.address).await;
    for stream in (0..20).map(|at| 1 + 2 * at) {
        wire.say(&wire::headers(stream, wire::END_HEADERS)).await;
        // The credential is missing: the call is refused while its message is on its way.
        tokio::time::sleep(Duration::from_millis(5)).await;
        wire.say(&wire::message(stream, b"")).await;
        wire.hear_undisturbed(wire::HEADERS).await;
    }
    wire.say(&wire::ping()).await;
    wire.hear_undisturbed(wire::PING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_begin_in_time_is_hung_up_on() {
    let server = bare(|tuning| tuning.handshake_timeout = Duration::from_millis(200)).await;
    let mut silent = Wire::silent(&server.address).await;
    let began = Instant::now();
    assert!(silent.hear_a(wire::SETTINGS).await.is_some());
    assert!(silent.hear_a(wire::SETTINGS).await.is_none());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(190), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Asks quiet clients soon whether they are there, and gives them little time to say so.
fn attentive(tuning: &mut Tuning) {
    tuning.keepalive_interval = Duration::from_millis(200);
    tuning.keepalive_timeout = Duration::from_millis(300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_hung_up_on_and_one_that_does_stays() {
    let server = bare(attentive).await;
    let mut dead = Wire::greeted(&server.address).await;
    let began = Instant::now();
    assert!(dead.hear_a(wire::PING).await.is_some(), "never asked");
    assert!(dead.hear_a(wire::PING).await.is_none(), "asked twice");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "hung up after {took:?}");
    let mut alive = Wire::greeted(&server.address).await;
    for _ in 0..5 {
        let asked = alive.hear_a(wire::PING).await.expect("it stays");
        let answer = wire::frame(wire::PING, wire::ACK, 0, &asked.payload);
        alive.say(&answer).await;
    }
}

/// What it does not read fills every buffer on the way, so no ping reaches it any more: only the
/// kernel can tell that it acknowledges nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let server = bare(attentive).await;
    let open = async || server.metric("stacktoken_connections").await;
    let mut wire = Wire::narrow(&server.address).await;
    let all = i32::MAX.to_be_bytes();
    let greedy = wire::frame(wire::SETTINGS, 0, 0, &[&[0, 4][..], &all].concat());
    let more = wire::window_update(0, (i32::MAX - 65_535).unsigned_abs());
    wire.say(&[wire::PREFACE, &greedy, &wire::settings_ack(), &more].concat())
        .await;
    for stream in (0..250).map(|at| 1 + 2 * at) {
        let asked = wire::message(stream, SYMBOL);
        wire.say(&[wire::call(stream, REFLECTION), asked].concat())
            .await;
    }
    assert_eq!(open().await, 1.0);
    eventually("it is cut off", async || {
        (open().await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_tokens_are_remembered_than_the_operator_allows() {
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
    // The gauge is set with every probe of health.
    let remembered = eventually("some are remembered", async || {
        let remembered = server.metric("stacktoken_cache_entries").await;
        (remembered > 0.0).then_some(remembered)
    })
    .await;
    assert!(remembered <= 20.0, "{remembered} are remembered");
    // With room for all, each is read once, and once more after its first use.
    let misses = server.metric("stacktoken_cache_misses_total").await;
    assert!(misses > 60.0, "{misses} misses");
}

/// A call of health whose message never comes.
async fn unfinished_call(server: &TestServer) -> Wire {
    let mut wire = Wire::greeted(&server.address).await;
    wire.say(&wire::call(1, HEALTH)).await;
    wire.say(&wire::ping()).await;
    wire.hear_a(wire::PING).await.unwrap();
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
    while wire.hear().await.is_some() {}
}

/// Opens streams from an address of the loopback network; answers how many of them begin, and the
/// connection that holds them.
async fn begun_from(server: &TestServer, ip: &str, path: &str, streams: u32) -> (usize, Wire) {
    let mut wire = Wire::greeted_from(ip, &server.address).await;
    let mut begun = 0;
    for stream in (0..streams).map(|at| 1 + 2 * at) {
        wire.say(&wire::call(stream, path)).await;
        if path == WATCH {
            wire.say(&wire::message(stream, &[])).await;
        }
        // A refusal is the end of its stream.
        let head = wire.hear_a(wire::HEADERS).await.unwrap();
        begun += usize::from(head.flags & wire::END_STREAM == 0);
    }
    (begun, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_never_has_more_than_its_share_of_streams_that_anybody_may_open() {
    let server = bare(|tuning| {
        tuning.max_watches = 16;
        tuning.shares.max_watches_per_address = Some(3);
    })
    .await;
    for (path, share) in [(REFLECTION, 8), (WATCH, 3)] {
        let mut held = Vec::new();
        for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] {
            let (begun, wire) = begun_from(&server, ip, path, 12).await;
            assert_eq!(begun, share, "{path} from {ip}");
            // Nor on another connection of the same address.
            let (begun, _) = begun_from(&server, ip, path, 1).await;
            assert_eq!(begun, 0, "{path} again from {ip}");
            held.push(wire);
        }
        drop(held.remove(0));
        eventually("its share is free again", async || {
            let (begun, _) = begun_from(&server, "127.0.0.1", path, 1).await;
            (begun == 1).then_some(())
        })
        .await;
    }
}

/// Opens calls on a connection whose messages never come; answers how many of them are refused.
async fn refused_of(server: &TestServer, wire: &mut Wire, calls: u32) -> usize {
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let credential = wire::literal(0x00, "authorization", &format!("Bearer {jwt}"));
    for stream in (0..calls).map(|at| 1 + 2 * at) {
        let head = [wire::head(), credential.clone()].concat();
        let call = wire::frame(wire::HEADERS, wire::END_HEADERS, stream, &head);
        wire.say(&call).await;
    }
    let mut refused = 0;
    while let Ok(Some(frame)) = timeout(Duration::from_millis(500), wire.hear()).await {
        refused += usize::from(frame.kind == wire::HEADERS);
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_their_message_are_limited_by_connection_and_by_address() {
    let server = bare(|tuning| {
        tuning.shares.max_waiting_per_connection = 3;
        tuning.shares.max_waiting_per_address = 4;
    })
    .await;
    let mut first = Wire::greeted(&server.address).await;
    assert_eq!(refused_of(&server, &mut first, 5).await, 2);
    let mut second = Wire::greeted(&server.address).await;
    assert_eq!(refused_of(&server, &mut second, 3).await, 2);
    let usual = bare(|_| {}).await;
    let mut wire = Wire::greeted(&usual.address).await;
    assert_eq!(refused_of(&usual, &mut wire, 5).await, 0);
}
