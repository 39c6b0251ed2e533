//! The service on its sockets: layers in front, health and metrics beside, every task
//! supervised, and an orderly end.

mod admin;
mod admission;
mod anybody;
mod connections;
mod deadline;
mod entrance;
mod handler;
mod headers;
pub mod health;
mod layers;
mod lifecycle;
mod message;
mod openings;
mod places;
mod ports;
mod request_id;
mod shares;
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
    health::Board,
    lifecycle::ServeError,
    ports::{Front, Ports},
    tls::{Tls, TlsError, TlsFiles},
};

/// What the service is made of; a test brings its own.
pub struct Parts {
    /// The store, its schema current.
    pub store: Arc<Store>,
    /// Who tells callers apart.
    pub authenticator: Arc<Authenticator>,
    /// Which actions the requests need that Envoy asks about.
    pub routes: Arc<RouteTable>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub entropy: Arc<dyn Entropy>,
    /// TLS on the gRPC port; without it the port is plaintext.
    pub tls: Option<Tls>,
    /// What keeps answers true: all of it, but in a negative control.
    pub safeguards: Safeguards,
}

/// What stands behind the ports once there is a store; the rest of [`Parts`].
pub struct Back {
    /// The store, its schema current.
    pub store: Arc<Store>,
    /// Which actions the requests need that Envoy asks about.
    pub routes: Arc<RouteTable>,
    /// What keeps answers true: all of it, but in a negative control.
    pub safeguards: Safeguards,
}

/// Sockets that are bound already, so that a taken port is known before anything starts.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For metrics and probes.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both.
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

    /// Credentials and secrets cross the gRPC port: beyond loopback, something must encrypt them.
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

/// Serves until `stop`, then drains. `serving` is called once IntrospectionService and
/// TokenService both are.
///
/// # Errors
/// [`ServeError`] where a socket fails or a task ends that should not.
pub async fn run(
    parts: Parts,
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

/// The same behind ports that answer already.
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

/// What is set about the use cases.
#[must_use]
pub fn use_cases(tuning: &Tuning, safeguards: Safeguards) -> app::Tuning {
    app::Tuning {
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
