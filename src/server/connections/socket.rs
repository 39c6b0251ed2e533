//! The bytes of a connection, encrypted or not, and whether its client has begun to speak.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// How long the preface of HTTP/2 is, in bytes (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// The bytes.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The bytes, counted until the client has begun.
pub(super) struct Watched {
    socket: Socket,
    /// How many bytes of the preface are still to come.
    awaited: usize,
    begun: Arc<AtomicBool>,
}

/// Whether a client has sent the preface. From then on the keep-alive looks after it; before,
/// nothing else does.
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    pub fn is_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn watched(socket: Socket) -> (Watched, Begun) {
    let begun = Arc::new(AtomicBool::new(false));
    let watched = Watched {
        socket,
        awaited: PREFACE,
        begun: begun.clone(),
    };
    (watched, Begun(begun))
}

/// The same call on whichever it is.
macro_rules! either {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Plain($io) => $call,
            Socket::Tls($io) => $call,
        }
    };
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(either!(&mut self.socket, io => Pin::new(io).poll_read(cx, buffer)))?;
        if self.awaited > 0 {
            let read = buffer.filled().len() - before;
            self.awaited = self.awaited.saturating_sub(read);
            if self.awaited == 0 {
                self.begun.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.socket, io => Pin::new(io).poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut self.socket, io => Pin::new(io).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.socket, io => io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.socket, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.socket, io => Pin::new(io).poll_shutdown(cx))
    }
}
