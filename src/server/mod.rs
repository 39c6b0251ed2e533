//! The server: sockets, middleware, health, metrics, supervised tasks and graceful shutdown.

mod admin;
mod admission;
mod cached_rpcs;
mod call_start;
mod connections;
mod deadline;
mod direct;
mod dispatcher;
mod handler;
mod head;
mod headers;
pub mod health;
mod health_list;
mod http_port;
mod keyed_counts;
mod layers;
mod lifecycle;
mod message;
mod open_rpcs;
mod permits;
mod port_parts;
mod ports;
mod protocol;
mod request_id;
mod rpc_layer;
mod rpc_middleware;
mod stream_limits;
mod tasks;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, App, Bounds, Rate, Safeguards, Workloads},
    auth::Authenticator,
    config::Tuning,
    domain::federation::session::SessionLimits,
    domain::{catalogue::Catalogue, clock::Clock, entropy::Entropy, routes::RouteTable},
    metrics::Metrics,
    store::Store,
};

pub use self::{
    connections::limiter::shortage_of_open_files,
    health::HealthBoard,
    layers::{LAYERS, Layer},
    lifecycle::ServeError,
    ports::{PortDeps, Ports},
    tls::{Tls, TlsError, TlsFiles, TlsInspection},
};

/// The components on which the service depends. Tests supply their own.
pub struct ServerParts {
    /// The store, whose schema is up to date.
    pub store: Arc<Store>,
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// The catalogue in effect.
    pub catalogue: Arc<Catalogue>,
    /// The routes of requests that Envoy checks, with the actions that each route requires.
    pub routes: Arc<RouteTable>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// TLS for the gRPC port and the HTTP port. If `None`, the ports are plaintext.
    pub tls: Option<Tls>,
    /// The safeguards that keep answers correct. All of them are on, except in negative-control
    /// tests.
    pub safeguards: Safeguards,
}

/// The components on which the service depends in addition to [`PortDeps`]. They are available only
/// once the store is open.
pub struct ServiceDeps {
    /// The store, whose schema is up to date.
    pub store: Arc<Store>,
    /// The catalogue in effect.
    pub catalogue: Arc<Catalogue>,
    /// The routes of requests that Envoy checks, with the actions that each route requires.
    pub routes: Arc<RouteTable>,
    /// The safeguards that keep answers correct. All of them are on, except in negative-control
    /// tests.
    pub safeguards: Safeguards,
}

/// The listening sockets. They are bound in advance, so that a port conflict is reported before
/// anything else starts.
pub struct Listeners {
    /// The socket of the gRPC port.
    pub grpc: TcpListener,
    /// The socket of the admin port, for metrics and probes.
    pub admin: TcpListener,
    /// The HTTP port. `None` if it is off.
    pub http: Option<HttpListener>,
}

/// The listening socket of the HTTP port.
pub struct HttpListener {
    /// The socket.
    pub listener: TcpListener,
    /// The URL at which clients reach the port, without a path. It is the `issuer` in the metadata.
    pub public_url: String,
}

impl Listeners {
    /// Binds the sockets of the gRPC port and the admin port.
    ///
    /// # Errors
    /// Returns [`ServeError::Bind`], which names the setting.
    pub async fn bind(grpc: SocketAddr, admin: SocketAddr) -> Result<Self, ServeError> {
        Ok(Self {
            grpc: bind("--listen", grpc).await?,
            admin: bind("--admin-listen", admin).await?,
            http: None,
        })
    }

    /// Binds the socket of the HTTP port as well. Without a `public_url`, clients must reach the
    /// port at its own address.
    ///
    /// # Errors
    /// Returns [`ServeError::Bind`], which names the setting.
    pub async fn with_http(
        mut self,
        address: SocketAddr,
        public_url: Option<String>,
    ) -> Result<Self, ServeError> {
        const SETTING: &str = "--http-listen";
        let listener = bind(SETTING, address).await?;
        let bound = listener.local_addr().map_err(|source| ServeError::Bind {
            setting: SETTING,
            address,
            source,
        })?;
        self.http = Some(HttpListener {
            listener,
            public_url: public_url.unwrap_or_else(|| format!("http://{bound}")),
        });
        Ok(self)
    }

    /// Logs a warning for each plaintext port on a non-loopback address, because such a port would
    /// expose credentials and secrets.
    fn warn_of_plaintext(&self, metrics: &Metrics) {
        let http = self.http.as_ref().map(|http| &http.listener);
        for listener in std::iter::once(&self.grpc).chain(http) {
            let Ok(address) = listener.local_addr() else {
                continue;
            };
            if !address.ip().is_loopback() {
                metrics.plaintext.set(1);
                tracing::warn!(%address, "no TLS on an address beyond loopback: let a mesh or a proxy encrypt this port");
            }
        }
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Bind {
        setting,
        address,
        source,
    })
}

/// Serves until `stop`, and then drains. Calls `serving` once IntrospectionService and TokenService
/// are both SERVING.
///
/// # Errors
/// Returns [`ServeError`] if a socket fails, or if a task ends that should run until shutdown.
pub async fn run(
    parts: ServerParts,
    tuning: &Tuning,
    listeners: Listeners,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let front = PortDeps {
        authenticator: parts.authenticator,
        clock: parts.clock,
        entropy: parts.entropy,
        tls: parts.tls,
    };
    let back = ServiceDeps {
        store: parts.store,
        catalogue: parts.catalogue,
        routes: parts.routes,
        safeguards: parts.safeguards,
    };
    let answering = listeners.open_as(front, tuning, false);
    run_on_ports(answering, back, serving, stop).await
}

/// Serves like [`run`], but on ports that already answer calls.
///
/// # Errors
/// Returns the same errors as [`run`].
pub async fn run_on_ports(
    ports: Ports,
    back: ServiceDeps,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (tuning, metrics) = (&ports.tuning, ports.metrics.clone());
    back.store.set_max_clock_skew(tuning.max_clock_skew);
    back.store.set_freshness_bound(tuning.freshness_bound);
    metrics
        .database_unverified
        .set((!back.store.is_private()).into());
    back.store.warn_unless_private();
    metrics.show_catalogue(back.catalogue.version());
    // This reference is weak, because the store must close when its service ends.
    let store = Arc::downgrade(&back.store);
    metrics.pools.read_with(move || {
        let store = store.upgrade();
        store.map_or_else(Vec::new, |store| store.pool_connections().into())
    });
    let compared = back.store.has_other_writers();
    ports.clock.permit(tuning.max_clock_skew, compared);
    let tuned = use_cases(tuning, back.safeguards);
    let workloads = Workloads {
        issuers: Arc::new(ports.authenticator.federation_issuers()),
        verifier: ports.authenticator.clone(),
    };
    let ambient = (ports.clock.clone(), ports.entropy.clone());
    let (app, refusals) = App::new(back.store, ambient, metrics, &tuned, back.catalogue);
    let service = lifecycle::Service {
        app: Arc::new(app.trusting(workloads)),
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
        unrecognized: Rate {
            per_second: tuning.unrecognized_per_second,
            burst: tuning.unrecognized_per_second,
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
        sessions: SessionLimits {
            of_token: tuning.max_sessions_per_token,
            of_subject: tuning.max_sessions_per_subject,
        },
    }
}
