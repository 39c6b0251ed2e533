//! Connections from accept to end: how many there may be, how long a client may take to begin,
//! how old one may get, and how it is told to go. Knows nothing of RPCs.

pub(super) mod arriving;
pub(super) mod guests;
mod leaving;
pub(super) mod room;
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
    room::{Limits, Place, Room},
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

/// How long to wait after an accept that failed for want of something, such as files.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// How much of what a client does not read is kept for it, in bytes a call.
const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// How much a client may send of one call before it is read, in bytes; of all calls of a
/// connection four times as much.
const UNREAD_BY_US: u32 = 64 * 1024;
/// The largest headers that a call is answered for, in bytes; beyond that the library answers, in
/// words and with a code that are not ours. What a call may have is for the layers to say.
const MAX_HEADER_BYTES: u32 = 96 * 1024;

/// What is known of a connection, attached to each of its calls.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Whom its client certificate makes, where it showed one.
    pub certified: Option<Certified>,
    /// Where it comes from: an address, or of IPv6 a network.
    pub network: IpAddr,
    /// What its calls may take before their messages have arrived.
    pub share: Arc<Share>,
}

impl Peer {
    /// The share of whoever made a request.
    pub fn share_of(extensions: &Extensions) -> Option<Arc<Share>> {
        extensions.get::<Self>().map(|peer| peer.share.clone())
    }
}

/// The answer to a call, as it comes about.
pub(super) type Answering =
    Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What answers calls. It is always ready: what is full answers OVERLOADED.
pub(super) trait Answer: Send + Sync + 'static {
    fn answer(self: &Arc<Self>, request: Request<Body>) -> Answering;
}

/// What every connection needs.
pub(super) struct Connections<S> {
    pub answering: Arc<S>,
    pub tls: Option<Arc<Tls>>,
    pub authenticator: Arc<Authenticator>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<Metrics>,
    pub tuning: Tuning,
}

impl<S: Answer> Connections<S> {
    /// Accepts and serves until `stop`; then accepts no more, tells every client to go, and
    /// ends with the last call. Dropping the future cuts whatever is still open.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let limits = Limits {
            all: room::affordable(self.tuning.max_connections),
            by_address: self.tuning.max_connections_per_address,
        };
        let open = self.metrics.connections.clone();
        let room = Room::new(limits, self.metrics.clone(), open);
        let unheard = self.tuning.keepalive_interval + self.tuning.keepalive_timeout;
        let this = Arc::new(self);
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                (socket, place) = accept(&listener, &room, unheard) => {
                    open.spawn(this.clone().run(socket, place, stop.clone()));
                }
                Some(ended) = open.join_next() => note_end(ended),
                () = stop.cancelled() => break,
            }
        }
        // The port is free from here on: a new client is refused at once rather than kept.
        drop(listener);
        while let Some(ended) = open.join_next().await {
            note_end(ended);
        }
    }

    /// One connection, from its handshake to its end.
    async fn run(self: Arc<Self>, socket: TcpStream, place: Place, stop: CancellationToken) {
        let within = self.tuning.handshake_timeout;
        let secured = tokio::select! {
            secured = tokio::time::timeout(within, self.secure(socket, &place)) => secured,
            // Nothing is at work on it yet.
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

    /// The client's certificate is judged once: it cannot change while the connection lives.
    async fn secure(&self, socket: TcpStream, place: &Place) -> io::Result<(Socket, Peer)> {
        let limits = WaitingLimits {
            by_connection: self.tuning.shares.max_waiting_per_connection,
            by_address: self.tuning.shares.max_waiting_per_address,
            message_bytes: self.tuning.max_request_bytes,
            answer_bytes: self.tuning.max_response_bytes,
        };
        let (share, network) = (Share::new(limits, place.waiting()), place.network());
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

    /// Streams that a client opens and resets before they are taken up have the library's own,
    /// narrow limit.
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

    /// Serves a connection; cuts one that does not begin, and tells one that is old, or all of
    /// them at the end, to go: GOAWAY first, then the time to finish what is at work.
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
                // How long this may take is the drain grace, kept by who serves.
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// A tenth more or less than set, so that clients which came together do not all go together.
    fn age(&self) -> Duration {
        let mut byte = [0];
        let spread = match self.entropy.fill(&mut byte) {
            Ok(()) => f64::from(byte[0]) / f64::from(u8::MAX),
            Err(_) => 0.5,
        };
        self.tuning.max_connection_age.mul_f64(0.9 + 0.2 * spread)
    }
}

/// The next connection that there is room for, cut off once its client has acknowledged nothing
/// for so long. What fails is told and waited for: a loop that ended, or that span, would be an
/// outage by one trick.
async fn accept(listener: &TcpListener, room: &Room, unheard: Duration) -> (TcpStream, Place) {
    loop {
        let free = room.free().await;
        match listener.accept().await {
            Ok((socket, address)) => {
                if let Some(place) = room.take(free, address.ip()) {
                    prepare(&socket, unheard);
                    return (socket, place);
                }
            }
            Err(error) => {
                room.note_failure(&error);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// The next connection to a port of few questions, for which there is always room.
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

/// Small answers do not wait for the acknowledgement of the one before; and a client that never
/// reads is cut off by the kernel, since no frame of ours would reach it any more.
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

/// The layers and handlers, as one connection sees them.
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
