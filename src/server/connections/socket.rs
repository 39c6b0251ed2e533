//! Byte stream of a connection, plaintext or TLS. It detects when the client has sent the HTTP/2
//! preface.

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

/// Length of the HTTP/2 client preface, in bytes (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// Plaintext or TLS stream.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Socket that counts received bytes until the preface is complete.
pub(super) struct Watched {
    socket: Socket,
    /// Number of bytes of the preface that have not arrived yet.
    awaited: usize,
    begun: Arc<AtomicBool>,
}

/// Whether the client has sent the preface. Only from then on does the HTTP/2 keep-alive detect a
/// client that is gone.
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

/// Evaluates a call on the inner stream, whichever variant of `Socket` it is.
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
