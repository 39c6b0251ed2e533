//! The server: sockets, middleware, health and metrics, supervised tasks and graceful shutdown.

mod admin;
mod admission;
mod anybody;
mod connections;
mod deadline;
mod entrance;
mod handler;
mod headers;
pub mod health;
mod lifecycle;
mod message;
mod permits;
mod ports;
mod request_id;
mod rpc_middleware;
mod shares;
mod stream_limits;
mod tasks;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Bounds, Rate, Safeguards},
    auth::Authenticator,
    config::Tuning,
    domain::{clock::Clock, entropy::Entropy, routes::RouteTable},
    metrics::Metrics,
    store::Store,
};

pub use self::{
    health::HealthBoard,
    lifecycle::ServeError,
    ports::{Front, Ports},
    tls::{Tls, TlsError, TlsFiles},
};

/// Dependencies of the service; tests supply their own.
pub struct ServerParts {
    /// The store, whose schema is up to date.
    pub store: Arc<Store>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// Actions required by the requests that Envoy asks about.
    pub routes: Arc<RouteTable>,
    /// Source of time.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// TLS on the gRPC port; without it the port is plaintext.
    pub tls: Option<Tls>,
    /// Safeguards of correct answers: all on, except in a negative-control test.
    pub safeguards: Safeguards,
}

/// Dependencies behind the ports once the store is open; the rest of [`ServerParts`].
pub struct Back {
    /// The store, whose schema is up to date.
    pub store: Arc<Store>,
    /// Actions required by the requests that Envoy asks about.
    pub routes: Arc<RouteTable>,
    /// Safeguards of correct answers: all on, except in a negative-control test.
    pub safeguards: Safeguards,
}

/// Sockets bound in advance, so that a port conflict fails before anything starts.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics and probes.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both sockets.
    ///
    /// # Errors
    /// [`ServeError::Bind`], which names the setting.
    pub async fn bind(grpc: SocketAddr, admin: SocketAddr) -> Result<Self, ServeError> {
        let bind = async |setting, address| {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|source| ServeError::Bind {
                setting,
                address,
                source,
            })
        };
        Ok(Self {
            grpc: bind("--listen", grpc).await?,
            admin: bind("--admin-listen", admin).await?,
        })
    }

    /// Warns if the gRPC port, which carries credentials and secrets, is plaintext beyond loopback.
    fn warn_of_plaintext(&self, metrics: &Metrics) {
        let Ok(address) = self.grpc.local_addr() else {
            return;
        };
        if !address.ip().is_loopback() {
            metrics.plaintext.set(1);
            tracing::warn!(%address, "no TLS beyond loopback: let a mesh or a proxy encrypt this port");
        }
    }
}

/// Serves until `stop`, then drains. Calls `serving` once IntrospectionService and TokenService
/// are both SERVING.
///
/// # Errors
/// [`ServeError`] if a socket fails or a task ends that should not.
pub async fn run(
    parts: ServerParts,
    tuning: &Tuning,
    listeners: Listeners,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let front = Front {
        authenticator: parts.authenticator,
        clock: parts.clock,
        entropy: parts.entropy,
        tls: parts.tls,
    };
    let back = Back {
        store: parts.store,
        routes: parts.routes,
        safeguards: parts.safeguards,
    };
    let answering = listeners.open_as(front, tuning, false);
    run_behind(answering, back, serving, stop).await
}

/// Serves as [`run`] does, behind ports that already answer.
///
/// # Errors
/// As [`run`].
pub async fn run_behind(
    ports: Ports,
    back: Back,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (tuning, metrics) = (&ports.tuning, ports.metrics.clone());
    back.store.permit_skew(tuning.max_clock_skew);
    back.store.answer_within(tuning.freshness_bound);
    metrics
        .database_unverified
        .set((!back.store.is_private()).into());
    back.store.warn_unless_private();
    let compared = back.store.is_shared();
    ports.clock.permit(tuning.max_clock_skew, compared);
    let tuned = use_cases(tuning, back.safeguards);
    let ambient = (ports.clock.clone(), ports.entropy.clone());
    let (app, refusals) = App::new(back.store, ambient, metrics, &tuned);
    let service = lifecycle::Service {
        app: Arc::new(app),
        routes: back.routes,
    };
    lifecycle::run(ports, service, refusals, serving, stop).await
}

/// Returns the settings of the application layer.
#[must_use]
pub fn use_cases(tuning: &Tuning, safeguards: Safeguards) -> app::UseCaseSettings {
    app::UseCaseSettings {
        verdict_max_age: tuning.verdict_max_age,
        changes: Rate {
            per_second: tuning.changes_per_second,
            burst: tuning.changes_burst,
        },
        unrecognised: Rate {
            per_second: tuning.unrecognised_per_second,
            burst: tuning.unrecognised_per_second,
        },
        bounds: Bounds {
            freshness: tuning.freshness_bound,
            serve_stale_for: tuning.serve_stale_for,
        },
        cache_entries: tuning.cache_entries,
        usage_pairs: tuning.usage_pairs,
        readings: tuning.max_readings,
        watch_queue: tuning.watch_queue,
        safeguards,
        keeping: tuning.keeping,
    }
}
