//! A connection that speaks HTTP/2 frames made by hand, for what no library lets a client do:
//! leave a message out, a ping unanswered or an answer unread.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub use crate::h2::*;

/// Kinds of frames (RFC 9113 §6).
pub const HEADERS: u8 = 0x1;
pub const RESET: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GO_AWAY: u8 = 0x7;

/// A frame that was heard.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The value of a setting that this frame of SETTINGS makes.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let mut entries = self.payload.chunks_exact(6);
        let entry = entries.find(|entry| entry[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(entry[2..].try_into().unwrap()))
    }
}

pub struct Wire(TcpStream);

impl Wire {
    /// A connection on which nothing is said yet.
    pub async fn silent(address: &str) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// One with the smallest buffer for what is not read.
    pub async fn narrow(address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self(socket.connect(address.parse().unwrap()).await.unwrap())
    }

    /// One that has greeted.
    pub async fn greeted(address: &str) -> Self {
        Self::greeted_from("127.0.0.1", address).await
    }

    /// One that has greeted, and comes from this address of the loopback network.
    pub async fn greeted_from(ip: &str, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
        let mut wire = Self(socket.connect(address.parse().unwrap()).await.unwrap());
        wire.say(&[PREFACE, &settings(), &settings_ack()].concat())
            .await;
        wire
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        // It may be closed for what was said before.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame, or `None` where the other side has closed the connection.
    pub async fn hear(&mut self) -> Option<Frame> {
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

    /// The next frame of this kind within a few seconds; `None` where the connection was
    /// closed before.
    pub async fn hear_a(&mut self, kind: u8) -> Option<Frame> {
        let hearing = async {
            loop {
                match self.hear().await {
                    Some(frame) if frame.kind == kind => return Some(frame),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let heard = timeout(Duration::from_secs(10), hearing).await;
        heard.expect("a frame, or the end of the connection")
    }

    /// Waits for a frame of this kind; no stream is reset before it, and nobody is told to go.
    pub async fn hear_undisturbed(&mut self, kind: u8) {
        loop {
            let heard = timeout(Duration::from_secs(10), self.hear()).await;
            let frame = heard.expect("a frame").expect("the connection stands");
            assert!(!matches!(frame.kind, RESET | GO_AWAY), "{frame:?}");
            if frame.kind == kind {
                return;
            }
        }
    }

    /// Whether nothing at all is heard for so long.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        timeout(time, self.hear()).await.is_err()
    }
}
