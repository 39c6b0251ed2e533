//! Tests a message that declares a false length, and connections that do not speak HTTP/2.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{frames, honest::FloodedServer, streams::Flood};

/// A message that declares a length of four gigabytes is refused, and no memory is reserved for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lie_about_the_length_reserves_nothing() {
    let mut flooded = FloodedServer::start(&[]).await;
    let flood = Flood::begin(&flooded.address(), |number| {
        let lie = |stream| {
            let mut out = frames::headers(stream, frames::END_HEADERS);
            out.extend(frames::data(stream, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
            out.extend(frames::reset(stream));
            out
        };
        (0..50)
            .flat_map(|at| lie(1 + 2 * (number * 50 + at)))
            .collect()
    });
    flooded.assert_withstands("length lie").await;
    let (sent, _) = flood.end();
    assert!(sent > 0);
}

/// A connection that does not speak HTTP/2 is closed at once.
#[tokio::test]
async fn noise_is_hung_up_on() {
    let flooded = FloodedServer::start(&[]).await;
    for noise in [
        &[0xff; 64][..],
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        &[
            0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    ] {
        let mut socket = TcpStream::connect(flooded.address()).await.unwrap();
        socket.write_all(noise).await.unwrap();
        let mut heard = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(4), socket.read_to_end(&mut heard));
        assert!(read.await.is_ok(), "not closed: {noise:?}");
    }
}
