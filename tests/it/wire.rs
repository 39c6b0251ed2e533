//! A connection that sends hand-made HTTP/2 frames. Tests use it to do what no client library does:
//! omit a message, leave a ping unanswered, or leave a response unread.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub use crate::h2::*;

/// The types of frames (RFC 9113 §6).
pub const HEADERS: u8 = 0x1;
pub const RESET: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GO_AWAY: u8 = 0x7;

/// A frame that was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Returns the value of a setting in this SETTINGS frame.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let mut entries = self.payload.chunks_exact(6);
        let entry = entries.find(|entry| entry[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(entry[2..].try_into().unwrap()))
    }
}

pub struct RawConnection(TcpStream);

impl RawConnection {
    /// Opens a connection and sends nothing.
    pub async fn silent(address: &str) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Opens a connection with the smallest possible receive buffer.
    pub async fn narrow(address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self(socket.connect(address.parse().unwrap()).await.unwrap())
    }

    /// Opens a connection and sends the HTTP/2 preface and SETTINGS.
    pub async fn connected(address: &str) -> Self {
        Self::connected_from("127.0.0.1", address).await
    }

    /// Opens a connection from this address of the loopback network, and sends the preface and
    /// SETTINGS.
    pub async fn connected_from(ip: &str, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
        let mut wire = Self(socket.connect(address.parse().unwrap()).await.unwrap());
        wire.send(&[PREFACE, &settings(), &settings_ack()].concat())
            .await;
        wire
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The write may fail, because the server may have closed the connection already.
        let _ = self.0.write_all(bytes).await;
    }

    /// Returns the next frame, or `None` if the server has closed the connection.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            payload,
        })
    }

    /// Returns the next frame of this kind, or `None` if the connection is closed first. Panics
    /// after ten seconds.
    pub async fn next_frame_of(&mut self, kind: u8) -> Option<Frame> {
        let hearing = async {
            loop {
                match self.next_frame().await {
                    Some(frame) if frame.kind == kind => return Some(frame),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let heard = timeout(Duration::from_secs(10), hearing).await;
        heard.expect("neither a frame nor the end of the connection")
    }

    /// Waits for a frame of this kind. Asserts that neither RST_STREAM nor GOAWAY arrives first.
    pub async fn expect_frame(&mut self, kind: u8) {
        loop {
            let heard = timeout(Duration::from_secs(10), self.next_frame()).await;
            let frame = heard.expect("no frame").expect("connection closed");
            assert!(!matches!(frame.kind, RESET | GO_AWAY), "{frame:?}");
            if frame.kind == kind {
                return;
            }
        }
    }

    /// Returns whether no frame arrives during this time.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        timeout(time, self.next_frame()).await.is_err()
    }
}
