//! The byte stream of a connection, plaintext or TLS. It can move to another runtime, and it
//! detects when the client has sent the HTTP/2 preface.

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
    Plain(Movable),
    Tls(Box<TlsStream<Movable>>),
}

/// A TCP stream that can move to another runtime. It must be registered again there, because tokio
/// reports the events of a stream only to the runtime that registered it.
pub(super) enum Movable {
    /// Registered with a runtime.
    Registered(TcpStream),
    /// On its way to another runtime.
    Released(std::net::TcpStream),
    /// Could not be moved, and is closed.
    Closed,
}

impl Movable {
    fn change(&mut self, change: impl FnOnce(Self) -> io::Result<Self>) -> io::Result<()> {
        let this = std::mem::replace(self, Self::Closed);
        *self = change(this)?;
        Ok(())
    }

    fn registered(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match self.get_mut() {
            Self::Registered(stream) => Ok(Pin::new(stream)),
            Self::Released(_) | Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Socket {
    /// Deregisters the socket from the current runtime. [`Self::register`] must follow on another
    /// one.
    pub fn release(&mut self) -> io::Result<()> {
        self.movable().change(|this| match this {
            Movable::Registered(stream) => stream.into_std().map(Movable::Released),
            other => Ok(other),
        })
    }

    /// Registers a released socket with the current runtime.
    pub fn register(&mut self) -> io::Result<()> {
        self.movable().change(|this| match this {
            Movable::Released(stream) => TcpStream::from_std(stream).map(Movable::Registered),
            other => Ok(other),
        })
    }

    fn movable(&mut self) -> &mut Movable {
        match self {
            Self::Plain(movable) => movable,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.registered()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.registered()?.poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.registered()?.poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_shutdown(cx)
    }
}

/// A socket that counts received bytes until the preface is complete.
pub(super) struct PrefaceSocket {
    socket: Socket,
    /// Number of bytes of the preface that have not arrived yet.
    awaited: usize,
    preface: Arc<AtomicBool>,
}

/// Whether the client has sent the preface. Before that, the HTTP/2 keep-alive does not detect a
/// client that is gone.
pub(super) struct PrefaceFlag(Arc<AtomicBool>);

impl PrefaceFlag {
    pub fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) fn preface_socket(socket: Socket) -> (PrefaceSocket, PrefaceFlag) {
    let preface = Arc::new(AtomicBool::new(false));
    let preface_socket = PrefaceSocket {
        socket,
        awaited: PREFACE,
        preface: preface.clone(),
    };
    (preface_socket, PrefaceFlag(preface))
}

/// Evaluates an expression with the inner stream, for both variants of `Socket`.
macro_rules! either {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Plain($io) => $call,
            Socket::Tls($io) => $call,
        }
    };
}

impl AsyncRead for PrefaceSocket {
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
                self.preface.store(true, Ordering::Relaxed);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PrefaceSocket {
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
