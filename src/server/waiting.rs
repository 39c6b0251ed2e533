//! Before there is a store: the ports answer, health is NOT_SERVING, and any call is told that
//! the store is unavailable. An orchestrator sees a process that lives and is not ready, rather
//! than one that ends.

use std::{convert::Infallible, io, os::fd::AsFd as _, sync::Arc};

use http::Request;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tower::Service as _;

use super::{Board, Listeners, Tls, admin, connections::Connections};
use crate::{
    auth::Authenticator,
    config::Tuning,
    domain::entropy::Entropy,
    grpc::status::{self, Failure},
    metrics::Metrics,
};

/// What the ports need to answer.
pub struct Lobby {
    /// Who tells callers apart; nobody is let in.
    pub authenticator: Arc<Authenticator>,
    /// Where randomness comes from.
    pub entropy: Arc<dyn Entropy>,
    /// TLS on the gRPC port.
    pub tls: Option<Tls>,
    /// The limits of connections.
    pub tuning: Tuning,
}

impl Listeners {
    /// Does the work, and answers both ports meanwhile.
    ///
    /// # Errors
    /// Where a socket cannot be shared.
    pub async fn answer_while<T>(
        &self,
        lobby: Lobby,
        work: impl Future<Output = T>,
    ) -> io::Result<T> {
        let metrics = Arc::new(Metrics::default());
        let board = Board::new(metrics.clone());
        let health = HealthServer::new(board.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let mut health = health.clone();
            Box::pin(async move {
                if request.uri().path().starts_with("/grpc.health.v1.Health/") {
                    return health.call(request).await;
                }
                Ok::<_, Infallible>(status::of(Failure::Starting, "").into_http())
            })
        });
        let connections = Connections {
            service,
            tls: lobby.tls.map(Arc::new),
            authenticator: lobby.authenticator,
            entropy: lobby.entropy,
            metrics: metrics.clone(),
            tuning: lobby.tuning,
        };
        let (grpc, probes) = (twin(&self.grpc)?, twin(&self.admin)?);
        let router = admin::router(metrics.clone(), board);
        let answering = async {
            tokio::join!(
                connections.serve(grpc, CancellationToken::new()),
                admin::serve(probes, router, metrics)
            );
        };
        tokio::select! {
            done = work => Ok(done),
            () = answering => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Another handle on the same socket.
fn twin(listener: &TcpListener) -> io::Result<TcpListener> {
    let twin = listener.as_fd().try_clone_to_owned()?;
    let twin = std::net::TcpListener::from(twin);
    twin.set_nonblocking(true)?;
    TcpListener::from_std(twin)
}
