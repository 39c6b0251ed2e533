//! Tests floods of frames. Each flood is sent by its own thread, which reconnects whenever it is
//! disconnected.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{process::setpriority_process, thread::gettid};

use crate::{frames, honest::FloodedServer};

/// The priority of attackers. Real ones would have their own machines; here they share this one, so
/// they get the lowest priority.
const NICE: i32 = 19;

/// A thread that sends frames until it is stopped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thrown_out: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// Sends bursts repeatedly. `burst` returns the bytes of the burst with this number.
    pub fn begin(address: &str, burst: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let thrown_out = Arc::new(AtomicUsize::new(0));
        let flags = (stop.clone(), sent.clone(), thrown_out.clone());
        let address = address.to_owned();
        let thread = thread::spawn(move || {
            let _ = setpriority_process(Some(gettid()), NICE);
            let (stop, sent, thrown_out) = flags;
            while !stop.load(Ordering::Relaxed) {
                one_connection(&address, &burst, &stop, &sent);
                thrown_out.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            sent,
            thrown_out,
            thread: Some(thread),
        }
    }

    /// Stops the flood. Returns how many bursts were sent, and how often the connection was closed.
    pub fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.thrown_out))
    }
}

/// Sends bursts over one connection until it is closed.
fn one_connection(
    address: &str,
    burst: &impl Fn(u32) -> Vec<u8>,
    stop: &AtomicBool,
    sent: &AtomicUsize,
) {
    let Ok(mut socket) = TcpStream::connect(address) else {
        return thread::sleep(Duration::from_millis(10));
    };
    socket
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let mut greeting = frames::PREFACE.to_vec();
    greeting.extend(frames::settings());
    greeting.extend(frames::settings_ack());
    if socket.write_all(&greeting).is_err() {
        return;
    }
    let mut heard = vec![0; 64 * 1024];
    for number in 0.. {
        if stop.load(Ordering::Relaxed) || socket.write_all(&burst(number)).is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        // The responses are read only so that they do not block the flood.
        if matches!(socket.read(&mut heard), Ok(0)) {
            return;
        }
    }
}

/// Returns the stream ids 1, 3, 5, … that a burst uses. Each burst uses `each` of them.
fn streams(number: u32, each: u32) -> impl Iterator<Item = u32> {
    (0..each).map(move |at| 1 + 2 * (number * each + at))
}

async fn assert_withstands(kind: &str, burst: impl Fn(u32) -> Vec<u8> + Send + 'static) {
    let mut flooded = FloodedServer::start(&[]).await;
    let flood = Flood::begin(&flooded.address(), burst);
    flooded.assert_withstands(kind).await;
    let (sent, thrown_out) = flood.end();
    println!("{kind}: {sent} bursts over {thrown_out} connections");
    assert!(sent > 0, "{kind}: nothing was sent");
}

/// CVE-2023-44487: the client opens streams and resets them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    assert_withstands("rapid reset", |number| {
        let both = |stream| {
            let mut out = frames::headers(stream, frames::END_HEADERS | frames::END_STREAM);
            out.extend(frames::reset(stream));
            out
        };
        streams(number, 100).flat_map(both).collect()
    })
    .await;
}

/// CVE-2025-8671: the client makes the server itself reset streams. A burst has only ten of them,
/// because a hundred concurrent calls would delay every caller even if they were harmless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_server_must_reset() {
    assert_withstands("made-you-reset", |number| {
        let both = |stream| {
            let mut out = frames::headers(stream, frames::END_HEADERS);
            out.extend(frames::window_update(stream, 0x7fff_ffff));
            out
        };
        streams(number, 10).flat_map(both).collect()
    })
    .await;
}

/// RUSTSEC-2024-0332: the client sends a header block that never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_without_end() {
    assert_withstands("CONTINUATION", |number| {
        let field = frames::literal(0x00, "x-flood", &"a".repeat(1_000));
        let more = frames::continuation(1, &field);
        let mut out = if number == 0 {
            frames::headers(1, 0)
        } else {
            Vec::new()
        };
        out.extend(std::iter::repeat_n(more, 50).flatten());
        out
    })
    .await;
}

/// RUSTSEC-2026-0258: the client sends empty DATA frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data_frames() {
    assert_withstands("empty DATA", |number| {
        let mut out = if number == 0 {
            frames::headers(1, frames::END_HEADERS)
        } else {
            Vec::new()
        };
        out.extend(std::iter::repeat_n(frames::data(1, &[]), 200).flatten());
        out
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings() {
    assert_withstands("SETTINGS and PING", |_| {
        let both = [frames::settings(), frames::ping()].concat();
        std::iter::repeat_n(both, 100).flatten().collect()
    })
    .await;
}

/// The client adds a large field to the dynamic table once and then references it repeatedly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_headers_that_unpack_to_large_ones() {
    assert_withstands("HPACK bomb", |number| {
        let bomb = |stream| {
            let mut block = frames::head();
            block.extend(frames::literal(0x40, "x-bomb", &"a".repeat(3_900)));
            // Index 62 is the newest field of the dynamic table.
            block.extend(std::iter::repeat_n(0x80 | 62, 4_000));
            frames::frame(
                0x1,
                frames::END_HEADERS | frames::END_STREAM,
                stream,
                &block,
            )
        };
        streams(number, 2).flat_map(bomb).collect()
    })
    .await;
}
