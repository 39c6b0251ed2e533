//! The service on its sockets: layers in front, health and metrics beside, every task
//! supervised, and an orderly end.

mod admin;
mod admission;
mod connections;
mod deadline;
mod handler;
mod headers;
pub mod health;
mod layers;
mod lifecycle;
mod message;
mod openings;
mod places;
mod tls;
mod waiting;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Bounds, Rate, Safeguards},
    auth::Authenticator,
    config::Tuning,
    domain::{clock::Clock, entropy::Entropy, routes::RouteTable},
    metrics::{Metrics, Process},
    store::Store,
    telemetry::{export::LOST, output::lines_dropped, sampling::SUPPRESSED},
};

pub use self::{
    health::Board,
    lifecycle::ServeError,
    tls::{Tls, TlsError, TlsFiles},
    waiting::Lobby,
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
    let metrics = Arc::new(Metrics::of_process(Process {
        spans_dropped: LOST.spans.clone(),
        span_export_failures: LOST.batches.clone(),
        log_lines_suppressed: SUPPRESSED.clone(),
        log_lines_dropped: lines_dropped,
    }));
    #[expect(clippy::cast_precision_loss, reason = "whole seconds are exact")]
    metrics.started.set(parts.clock.now().seconds() as f64);
    if parts.tls.is_none() {
        warn_of_plaintext(&listeners.grpc, &metrics);
    }
    parts.store.permit_skew(tuning.max_clock_skew);
    if !parts.store.is_private() {
        metrics.database_unverified.set(1);
        tracing::warn!(
            "the database is not verified: set sslmode=verify-full and sslrootcert in its URL"
        );
    }
    let compared = parts.store.is_shared();
    parts.clock.permit(tuning.max_clock_skew, compared);
    let tuned = use_cases(tuning, parts.safeguards);
    let ambient = (parts.clock.clone(), parts.entropy.clone());
    let (app, refusals) = App::new(parts.store.clone(), ambient, metrics.clone(), &tuned);
    let service = lifecycle::Service {
        app: Arc::new(app),
        authenticator: parts.authenticator,
        routes: parts.routes,
        entropy: parts.entropy,
        tls: parts.tls.map(Arc::new),
        board: Board::new(metrics),
    };
    lifecycle::run(service, refusals, tuning, listeners, serving, stop).await
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

/// Credentials and secrets cross this port: beyond loopback, something must encrypt them.
fn warn_of_plaintext(listener: &TcpListener, metrics: &Metrics) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    if !address.ip().is_loopback() {
        metrics.plaintext.set(1);
        tracing::warn!(%address, "no TLS beyond loopback: let a mesh or a proxy encrypt this port");
    }
}
