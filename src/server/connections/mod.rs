//! Connections, from accept to close: limits on their number, a timeout for the handshake, a
//! maximum age and graceful shutdown. This module knows nothing of RPCs.

pub(super) mod arriving;
pub(super) mod guests;
mod leaving;
pub(super) mod limiter;
pub(super) mod share;
mod socket;

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{Extensions, Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use self::{
    arriving::Arriving,
    guests::{Guest, Guests},
    leaving::{Leaving, Outgoing},
    limiter::{ConnectionLimiter, ConnectionPermit, Limits},
    share::{Share, WaitingLimits},
    socket::{Begun, Socket},
};
use super::tls::Tls;
use crate::{
    auth::{Authenticator, Certified},
    config::Tuning,
    domain::entropy::Entropy,
    metrics::Metrics,
};

/// Back-off after a failed accept, for example when file descriptors run out.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// Size of the send buffer for data that the client has not read, in bytes per call.
const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// Receive window of one stream, in bytes. The window of a connection is four times as large.
const UNREAD_BY_US: u32 = 64 * 1024;
/// Lower bound of hyper's limit on the size of headers, in bytes. Hyper refuses larger headers with
/// an error of its own. Below hyper's limit, the middleware enforces `--max-header-bytes` with our
/// error.
const MAX_HEADER_BYTES: u32 = 96 * 1024;

/// Identity of a connection's peer and the limits that its connections share; attached to each
/// request.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The evaluated client certificate, if one was presented.
    pub certified: Option<Certified>,
    /// The peer's IPv4 address, or the /64 network of its IPv6 address.
    pub network: IpAddr,
    /// Limits on calls whose message has not arrived, and on unread responses.
    pub share: Arc<Share>,
}

impl Peer {
    /// Returns the share of the peer that sent a request.
    pub fn share_of(extensions: &Extensions) -> Option<Arc<Share>> {
        extensions.get::<Self>().map(|peer| peer.share.clone())
    }
}

/// Future of the response to a call.
pub(super) type Answering =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A service that answers calls. It is always ready, and answers with OVERLOADED when one of its
/// limits is reached.
pub(super) trait Answer: Send + Sync + 'static {
    fn answer(self: &Arc<Self>, request: Request<Body>) -> Answering;
}

/// State shared by all connections.
pub(super) struct Connections<S> {
    pub answering: Arc<S>,
    pub tls: Option<Arc<Tls>>,
    pub authenticator: Arc<Authenticator>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<Metrics>,
    pub tuning: Tuning,
}

impl<S: Answer> Connections<S> {
    /// Accepts and serves connections until `stop`. Then stops accepting, shuts every connection
    /// down gracefully, and returns after the last call. Dropping the future closes the connections
    /// that are still open.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let limits = Limits {
            all: limiter::affordable(self.tuning.max_connections),
            by_address: self.tuning.max_connections_per_address,
        };
        let open = self.metrics.connections.clone();
        let limiter = ConnectionLimiter::new(limits, self.metrics.clone(), open);
        let unheard = self.tuning.keepalive_interval + self.tuning.keepalive_timeout;
        let this = Arc::new(self);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                (socket, permit) = accept(&listener, &limiter, unheard) => {
                    open.spawn(this.clone().run(socket, permit, stop.clone()));
                }
                Some(ended) = open.join_next() => note_end(ended),
                () = stop.cancelled() => break,
            }
        }
        // Closes the port, so that new clients are refused at once instead of queued.
        drop(listener);
        while let Some(ended) = open.join_next().await {
            note_end(ended);
        }
    }

    /// Serves one connection, from its handshake to its end.
    async fn run(
        self: Arc<Self>,
        socket: TcpStream,
        permit: ConnectionPermit,
        stop: CancellationToken,
    ) {
        let within = self.tuning.handshake_timeout;
        let secured = tokio::select! {
            secured = tokio::time::timeout(within, self.secure(socket, &permit)) => secured,
            // No call is in progress on this connection yet.
            () = stop.cancelled() => return,
        };
        let (socket, peer) = match secured {
            Ok(Ok(secured)) => secured,
            Ok(Err(error)) => {
                self.metrics.refuse_connection("handshake");
                tracing::debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => return self.metrics.refuse_connection("slow"),
        };
        let (socket, begun) = socket::watched(socket);
        let service = PerConnection {
            answering: self.answering.clone(),
            peer,
        };
        let connection = self.http2().serve_connection(TokioIo::new(socket), service);
        self.keep(connection, begun, stop).await;
    }

    /// Performs the TLS handshake, if TLS is on. The client certificate is evaluated only once,
    /// because it cannot change during a connection.
    async fn secure(
        &self,
        socket: TcpStream,
        permit: &ConnectionPermit,
    ) -> io::Result<(Socket, Peer)> {
        let limits = WaitingLimits {
            by_connection: self.tuning.shares.max_waiting_per_connection,
            by_address: self.tuning.shares.max_waiting_per_address,
            message_bytes: self.tuning.max_request_bytes,
            answer_bytes: self.tuning.max_response_bytes,
        };
        let (share, network) = (Share::new(limits, permit.waiting()), permit.network());
        let share = Arc::new(share);
        let Some(tls) = &self.tls else {
            let peer = Peer {
                certified: None,
                network,
                share,
            };
            return Ok((Socket::Plain(socket), peer));
        };
        let socket = tls.acceptor().accept(socket).await?;
        let chain = socket.get_ref().1.peer_certificates();
        let leaf = chain.and_then(<[_]>::first);
        let certified = leaf.map(|leaf| self.authenticator.certify(leaf));
        let peer = Peer {
            certified,
            network,
            share,
        };
        Ok((Socket::Tls(Box::new(socket)), peer))
    }

    /// Builds the HTTP/2 settings. The number of streams that a client may reset before they are
    /// accepted is left at the library's own low limit.
    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let tuning = &self.tuning;
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(tuning.max_streams)
            .max_local_error_reset_streams(tuning.max_resets)
            .max_header_list_size(tuning.max_header_bytes.max(MAX_HEADER_BYTES))
            .initial_stream_window_size(UNREAD_BY_US)
            .initial_connection_window_size(4 * UNREAD_BY_US)
            .max_send_buf_size(MAX_UNREAD_BYTES)
            .keep_alive_interval(tuning.keepalive_interval)
            .keep_alive_timeout(tuning.keepalive_timeout);
        http2
    }

    /// Serves a connection. Closes the connection if the client sends no preface in time. At its
    /// maximum age or on `stop`, shuts the connection down gracefully: the client gets GOAWAY, and
    /// calls in progress get time to finish.
    async fn keep(
        &self,
        connection: http2::Connection<TokioIo<socket::Watched>, PerConnection<S>, TokioExecutor>,
        begun: Begun,
        stop: CancellationToken,
    ) {
        let mut connection = pin!(connection);
        let mut begin_by = pin!(tokio::time::sleep(self.tuning.handshake_timeout));
        let mut grow_old = pin!(tokio::time::sleep(self.age()));
        let mut leave_by = pin!(tokio::time::sleep(Duration::MAX));
        let (mut waiting, mut leaving, mut draining) = (true, false, false);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = &mut begin_by, if waiting => {
                    waiting = false;
                    if !begun.is_begun() {
                        return self.metrics.refuse_connection("slow");
                    }
                }
                () = &mut grow_old, if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                    leave_by.set(tokio::time::sleep(self.tuning.max_connection_age_grace));
                }
                () = &mut leave_by, if leaving && !draining => return,
                // The caller of `serve` enforces the drain grace.
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Returns the maximum age of a connection, with ±10 % jitter, so that connections do not all
    /// end at once.
    fn age(&self) -> Duration {
        let mut byte = [0];
        let spread = match self.entropy.fill(&mut byte) {
            Ok(()) => f64::from(byte[0]) / f64::from(u8::MAX),
            Err(_) => 0.5,
        };
        self.tuning.max_connection_age.mul_f64(0.9 + 0.2 * spread)
    }
}

/// Accepts the next connection within the limits, and sets its TCP user timeout to `unheard`. An
/// accept error is logged, and accepting goes on after a pause. To exit or to retry without a pause
/// would let a client cause a denial of service.
async fn accept(
    listener: &TcpListener,
    limiter: &ConnectionLimiter,
    unheard: Duration,
) -> (TcpStream, ConnectionPermit) {
    loop {
        let free = limiter.acquire().await;
        match listener.accept().await {
            Ok((socket, address)) => {
                if let Some(permit) = limiter.take(free, address.ip()) {
                    prepare(&socket, unheard);
                    return (socket, permit);
                }
            }
            Err(error) => {
                limiter.note_failure(&error);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Accepts the next connection to the admin port. If the limit is reached, an old connection is
/// closed for it.
pub(super) async fn accept_guest(
    listener: &TcpListener,
    guests: &Guests,
    (metrics, unheard): (&Metrics, Duration),
) -> (TcpStream, Guest) {
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let (guest, another_went) = guests.admit(address.ip());
                if another_went {
                    metrics.refuse_connection("displaced");
                }
                prepare(&socket, unheard);
                return (socket, guest);
            }
            Err(error) => {
                metrics.refuse_connection("accept");
                tracing::warn!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// Sets `TCP_NODELAY`, so that small responses are not delayed, and `TCP_USER_TIMEOUT`. With the
/// latter, the kernel closes the connection of a client that never reads, to which our HTTP/2
/// frames no longer get through.
fn prepare(socket: &TcpStream, unheard: Duration) {
    let unheard = u32::try_from(unheard.as_millis()).unwrap_or(u32::MAX);
    let cut = set_tcp_user_timeout(socket, unheard).map_err(io::Error::from);
    if let Err(error) = socket.set_nodelay(true).and(cut) {
        tracing::debug!(%error, "a connection could not be prepared");
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(panicked = error.is_panic(), "a connection failed");
    }
}

/// Hyper service of one connection. It attaches the peer to each request, and counts the bodies of
/// requests and responses.
struct PerConnection<S> {
    answering: Arc<S>,
    peer: Peer,
}

impl<S: Answer> hyper::service::Service<Request<Incoming>> for PerConnection<S> {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Leaving<Answering>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let arriving = |body| Body::new(Arriving::new(body, self.peer.share.clone()));
        let mut request = request.map(arriving);
        request.extensions_mut().insert(self.peer.clone());
        Leaving::new(self.answering.answer(request), self.peer.share.clone())
    }
}
