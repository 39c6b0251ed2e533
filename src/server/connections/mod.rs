//! Handles connections from accept to close: limits, handshakes, a maximum age, graceful shutdown.
//! One task accepts them, dedicated threads serve them. This module does not depend on RPCs.

mod accepting;
pub(super) mod admin_connections;
pub(super) mod backlog;
mod hosts;
mod http1;
mod lifetime;
pub(super) mod limiter;
pub(super) mod message_read;
pub(super) mod request_body;
pub(in crate::server) mod response_body;
mod socket;
pub(super) mod unary_body;

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    num::NonZero,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use http::{Extensions, Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

pub(super) use self::accepting::accept_admin;
use self::{
    accepting::accept,
    backlog::{Backlog, BacklogLimits},
    hosts::Hosts,
    http1::Announcing,
    lifetime::Ending,
    limiter::{ConnectionLimiter, ConnectionPermit},
    request_body::RequestBody,
    response_body::{ResponseBody, ResponseFuture},
    socket::{Movable, Socket},
};
use super::tls::Tls;
use crate::{
    auth::{Authenticator, ClientCertificate, ConnectionCredentials},
    config::Tuning,
    domain::entropy::Entropy,
    metrics::Metrics,
};

/// Size of the send buffer of each call, in bytes. It holds data that the client has not read yet.
const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// Receive window of one stream, in bytes. The window of a connection is four times as large.
const UNREAD_BY_US: u32 = 64 * 1024;
/// The lowest value for hyper's limit on the size of headers, in bytes. hyper refuses larger
/// headers with its own error. Below hyper's limit, the middleware enforces `--max-header-bytes`
/// with our error.
const MAX_HEADER_BYTES: u32 = 96 * 1024;

/// The identity of a connection's peer, and the limits that apply to it. Attached to each request.
#[derive(Debug)]
pub(super) struct Peer {
    /// The evaluated client certificate, if one was presented.
    pub certified: Option<ClientCertificate>,
    /// The peer's IPv4 address, or the /64 network of its IPv6 address.
    pub network: IpAddr,
    /// Limits on calls whose message has not arrived, and on unread responses.
    pub backlog: Arc<Backlog>,
    /// Credentials that were verified on this connection.
    pub credentials: ConnectionCredentials,
}

impl Peer {
    /// Returns the peer that sent a request.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get::<Arc<Self>>().map(AsRef::as_ref)
    }

    /// Returns the backlog of the peer that sent a request.
    pub fn backlog_of(extensions: &Extensions) -> Option<Arc<Backlog>> {
        Self::of(extensions).map(|peer| peer.backlog.clone())
    }

    /// Returns whether the peer that sent a request leaves too many responses unread.
    pub fn is_behind(extensions: &Extensions) -> bool {
        Self::of(extensions).is_some_and(|peer| peer.backlog.is_behind())
    }
}

/// Future of the response to a call.
pub(super) type AnswerFuture =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// A service that answers calls. It is always ready, and answers with OVERLOADED when one of its
/// limits is reached.
pub(super) trait Answer: Send + Sync + 'static {
    fn answer(self: &Arc<Self>, request: Request<RequestBody>, peer: &Arc<Peer>) -> AnswerFuture;
}

/// A connection whose handshake is done, and whose socket is not registered with a runtime.
struct Secured {
    socket: Socket,
    peer: Arc<Peer>,
    permit: ConnectionPermit,
}

/// The protocol of a port. The client cannot choose another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1, for the HTTP port.
    Http1,
}

impl Protocol {
    /// Returns the prefix of the names of the threads that serve the connections of this port.
    const fn thread_name(self) -> &'static str {
        match self {
            Self::Http2 => "connections",
            Self::Http1 => "http",
        }
    }
}

/// State shared by all connections of a port.
pub(super) struct Connections<S> {
    pub answering: Arc<S>,
    pub protocol: Protocol,
    pub limiter: Arc<ConnectionLimiter>,
    pub tls: Option<Arc<Tls>>,
    pub authenticator: Arc<Authenticator>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<Metrics>,
    pub tuning: Tuning,
    /// Cancelled when the process begins to drain, some time before `stop`.
    pub draining: CancellationToken,
}

impl<S: Answer> Connections<S> {
    /// Accepts and serves connections until `stop`. Then stops accepting, shuts down every
    /// connection gracefully, and returns after the last call. Also returns if a thread that serves
    /// connections ends or cannot be started. Dropping the future closes the connections that are
    /// still open, and ends the threads.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let threads = threads(&self.tuning);
        let mut hosts = match Hosts::start(self.protocol.thread_name(), threads) {
            Ok(hosts) => hosts,
            Err(error) => {
                tracing::error!(%error, "the threads of connections cannot be started");
                return;
            }
        };
        let limiter = self.limiter.clone();
        let unheard = self.tuning.keepalive_interval + self.tuning.keepalive_timeout;
        let this = Arc::new(self);
        let mut begun = JoinSet::new();
        loop {
            tokio::select! {
                (socket, permit) = accept(&listener, &limiter, unheard) => {
                    begun.spawn(this.clone().begin(socket, permit, stop.clone()));
                }
                Some(ended) = begun.join_next() => this.hand_over(&hosts, ended, &stop),
                () = hosts.next_end() => {
                    tracing::error!("a thread that serves connections has ended");
                    return;
                }
                () = stop.cancelled() => break,
            }
        }
        // Close the port, so that new clients are refused at once instead of queued.
        drop(listener);
        while let Some(ended) = begun.join_next().await {
            this.hand_over(&hosts, ended, &stop);
        }
        hosts.finish().await;
    }

    /// Performs the handshake of a connection, and releases its socket from this runtime. TLS
    /// handshakes take milliseconds of CPU time, so they do not run on the threads that answer
    /// calls.
    async fn begin(
        self: Arc<Self>,
        socket: TcpStream,
        permit: ConnectionPermit,
        stop: CancellationToken,
    ) -> Option<Secured> {
        let within = self.tuning.handshake_timeout;
        let secured = tokio::select! {
            secured = tokio::time::timeout(within, self.secure(socket, &permit)) => secured,
            // No call is in progress on this connection yet.
            () = stop.cancelled() => return None,
        };
        let secured = secured.map(|secured| {
            let (mut socket, peer) = secured?;
            socket.release()?;
            Ok::<_, io::Error>((socket, peer))
        });
        match secured {
            Ok(Ok((socket, peer))) => Some(Secured {
                socket,
                peer: Arc::new(peer),
                permit,
            }),
            Ok(Err(error)) => {
                self.metrics.refuse_connection("handshake");
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
            Err(_) => {
                self.metrics.refuse_connection("slow");
                None
            }
        }
    }

    /// Hands a connection over to a host, unless its handshake has failed.
    fn hand_over(
        self: &Arc<Self>,
        hosts: &Hosts,
        begun: Result<Option<Secured>, JoinError>,
        stop: &CancellationToken,
    ) {
        match begun {
            Ok(Some(secured)) => {
                let (this, stop) = (self.clone(), stop.clone());
                hosts.hand_over(move || this.run(secured, stop));
            }
            Ok(None) => {}
            Err(error) => hosts::note_failure(&error),
        }
    }

    /// Serves one connection on the runtime of its host, until the connection ends.
    async fn run(self: Arc<Self>, secured: Secured, stop: CancellationToken) {
        let Secured {
            mut socket,
            peer,
            permit,
        } = secured;
        if let Err(error) = socket.register() {
            self.metrics.refuse_connection("accept");
            tracing::warn!(%error, "a connection could not be registered");
            return;
        }
        let (socket, preface) = socket::preface_socket(socket);
        let service = PerConnection {
            answering: self.answering.clone(),
            peer,
        };
        let socket = TokioIo::new(socket);
        match self.protocol {
            Protocol::Http2 => {
                let connection = self.http2().serve_connection(socket, service);
                self.keep(connection, Ending::Goaway(preface), stop).await;
            }
            Protocol::Http1 => {
                let is_last = Arc::<AtomicBool>::default();
                let service = Announcing::new(service, is_last.clone());
                let connection = self.http1().serve_connection(socket, service);
                self.keep(connection, Ending::Announced(is_last), stop)
                    .await;
            }
        }
        drop(permit);
    }

    /// Performs the TLS handshake, if TLS is on. The client certificate is evaluated only once,
    /// because it cannot change during a connection.
    async fn secure(
        &self,
        socket: TcpStream,
        permit: &ConnectionPermit,
    ) -> io::Result<(Socket, Peer)> {
        let limits = BacklogLimits {
            by_connection: self.tuning.client_limits.max_waiting_per_connection,
            by_address: self.tuning.client_limits.max_waiting_per_address,
            message_bytes: self.tuning.max_request_bytes,
            answer_bytes: self.tuning.max_response_bytes,
        };
        let peer = |certified| Peer {
            certified,
            network: permit.network(),
            backlog: Arc::new(Backlog::new(limits, permit.waiting())),
            credentials: ConnectionCredentials::default(),
        };
        let Some(tls) = &self.tls else {
            return Ok((Socket::Plain(Movable::Registered(socket)), peer(None)));
        };
        let socket = Movable::Registered(socket);
        let socket = tls.acceptor(self.protocol).accept(socket).await?;
        let chain = socket.get_ref().1.peer_certificates();
        let leaf = chain.and_then(<[_]>::first);
        let peer = peer(leaf.map(|leaf| self.authenticator.certify(leaf)));
        Ok((Socket::Tls(Box::new(socket)), peer))
    }

    /// Builds the HTTP/2 settings. The limit on streams that a client resets before they are
    /// accepted stays at the library's low default.
    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let tuning = &self.tuning;
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            // No gRPC client reads `date`, which adds about 40 bytes to each response.
            .auto_date_header(false)
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
}

/// Returns the number of threads that serve connections.
pub(super) fn threads(tuning: &Tuning) -> usize {
    let per_cpu = || thread::available_parallelism().map_or(1, NonZero::get);
    tuning.connection_threads.unwrap_or_else(per_cpu)
}

/// The hyper service of one connection. It counts the bodies of requests and responses against the
/// limits of the peer.
struct PerConnection<S> {
    answering: Arc<S>,
    peer: Arc<Peer>,
}

impl<S: Answer> hyper::service::Service<Request<Incoming>> for PerConnection<S> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<AnswerFuture>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let backlog = &self.peer.backlog;
        let request = request.map(|body| RequestBody::new(body, backlog.clone()));
        ResponseFuture::new(self.answering.answer(request, &self.peer), backlog.clone())
    }
}
