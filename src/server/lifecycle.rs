//! Startup and shutdown. Every task is supervised: if a task ends early, the process stops, so that
//! it never runs without one of its tasks. After SIGTERM, the process first reports NOT_SERVING but
//! keeps answering. Then it stops accepting connections, finishes the calls in progress, and writes
//! the remaining usage and audit rows.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future;
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Ports, cached_rpcs::CachedRpcs, dispatcher::MAX_OPEN_REQUEST, health,
    health_list::HealthService, permits::CallPermits, rpc_layer::RpcService,
    rpc_middleware::RpcMiddleware, tasks::unless_failing,
};
use crate::{
    app::{App, RefusalWriter},
    domain::{entropy::SplitMix64, routes::RouteTable},
    grpc::{self, MessageLimits, from_cache::CachedVerdicts},
    telemetry::{sampling, traces::Sampler},
};

/// Default time for which the process keeps answering after SIGTERM.
const DRAIN_DELAY: Duration = Duration::from_secs(5);
/// The task that writes the audit rows of refusals.
const REFUSALS: &str = "audit of refusals";
/// How long it may take at shutdown to write the remaining token usage and the audit rows of
/// refusals.
const FLUSH_FOR: Duration = Duration::from_secs(5);

/// Error that ended the service before a shutdown was requested.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket could not be bound.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// The setting that names the address.
        setting: &'static str,
        /// The address that could not be bound.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A task ended although it should run until shutdown.
    #[error("the task `{0}` ended unexpectedly")]
    TaskEnded(&'static str),
    /// A task panicked.
    #[error("a task failed")]
    TaskFailed(#[from] tokio::task::JoinError),
    /// The reflection service could not be built from the API contract.
    #[error("the reflection service could not be built")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The application and its routes.
pub(super) struct Service {
    pub app: Arc<App>,
    pub routes: Arc<RouteTable>,
}

pub(super) async fn run(
    mut ports: Ports,
    service: Service,
    refusals: RefusalWriter,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let board = ports.board.clone();
    let watched = Arc::downgrade(&service.app);
    begin(&mut ports, &service.app, &stop);
    let last_usage = service.app.usage_writer();
    let mut announcing = JoinSet::new();
    let announced = board.clone();
    announcing.spawn(async move {
        health::all_serving(announced).await;
        // The callback may print, and therefore block if the reader of the output stalls.
        let _ = tokio::task::spawn_blocking(serving).await;
    });
    let mut writing = JoinSet::new();
    let failing = ports.tuning.failing_task;
    writing.spawn(unless_failing(REFUSALS, failing, refusals.run()));

    ports.install(gated(&ports, service)?);
    tokio::select! {
        ended = ports.next_end() => return Err(ended),
        ended = writing.join_next() => return Err(ended_early(REFUSALS, ended)),
        () = stop.cancelled() => {}
    }

    let grace = ports.tuning.drain_grace;
    let delay = ports.tuning.drain_delay.unwrap_or(DRAIN_DELAY);
    tracing::info!(?delay, ?grace, "draining");
    ports.begin_drain();
    tokio::select! {
        ended = ports.next_end() => return Err(ended),
        () = sleep(delay) => {}
    }
    ports.stop_accepting();
    if let Some(app) = watched.upgrade() {
        app.close_watches();
    }
    let mut out_of_time = Box::pin(sleep(grace + FLUSH_FOR));
    ports.finish(grace).await;
    // Drop the last handle to the `App`, so that the refusal writer writes its remaining rows and
    // ends.
    drop(ports);
    // The final writes may also use what is left of the drain grace.
    let flushed = future::join(last_usage.write_all(), writing.join_next());
    tokio::select! {
        _ = flushed => {}
        () = &mut out_of_time => {
            tracing::warn!("stopped before all refusals and uses of tokens were written");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the background tasks. They run until shutdown.
fn begin(ports: &mut Ports, app: &Arc<App>, stop: &CancellationToken) {
    let (board, authenticator) = (ports.board.clone(), ports.authenticator.clone());
    // This must come before the first call. From here on, changes are refused until a heartbeat has
    // determined which database to trust.
    app.store().require_trust();
    let tasks = &mut ports.tasks;
    let keys = authenticator.clone();
    tasks.run("keys", async move { keys.keep_fresh().await });
    let (reader, beater, listener) = (app.clone(), app.clone(), app.clone());
    tasks.run("feed", async move { reader.poll_change_log().await });
    tasks.run("heartbeat", async move { beater.send_heartbeats().await });
    tasks.run(
        "listener",
        async move { listener.listen_for_changes().await },
    );
    let (keeper, lookout, stopping) = (app.clone(), app.clone(), stop.clone());
    tasks.run("housekeeping", async move {
        keeper.run_housekeeping(&stopping).await;
    });
    let stopping = stop.clone();
    tasks.run("expiry", async move {
        lookout.report_expiring_periodically(&stopping).await;
    });
    let follower = app.clone();
    tasks.run("read-only", async move {
        follower.poll_read_only().await;
    });
    let guarding = app.clone();
    tasks.run("guard", async move { guarding.tend_guard().await });
    let probed = app.clone();
    tasks.run("health", health::run_probes(board, probed, authenticator));
    let usage = app.usage_writer();
    let every = ports.tuning.usage_flush_every;
    tasks.run("usage", async move { usage.run_writer(every).await });
    tasks.run("log sampling", sampling::end_minutes());
}

/// Builds the gRPC service behind its middleware.
fn gated(ports: &Ports, service: Service) -> Result<RpcService, ServeError> {
    let tuning = &ports.tuning;
    let limits = MessageLimits {
        decoding: tuning.max_request_bytes,
        encoding: tuning.max_response_bytes,
    };
    let health = HealthService::new(ports.board.clone(), MAX_OPEN_REQUEST);
    let verdicts = CachedVerdicts::new(service.app.clone(), service.routes.clone(), limits);
    let mut routes = grpc::routes(&service.app, service.routes, limits).add_service(health);
    if tuning.reflection {
        routes = grpc::add_reflection(routes, MAX_OPEN_REQUEST)?;
    }
    let middleware = RpcMiddleware {
        app: service.app,
        authenticator: ports.authenticator.clone(),
        permits: CallPermits::new(tuning),
        max_request_bytes: tuning.max_request_bytes,
        open_rpcs: ports.open_rpcs.clone(),
        max_header_bytes: tuning.max_header_bytes,
        sampler: Sampler::new(&tuning.traces),
        ids: SplitMix64::seeded(ports.entropy.as_ref()),
        cached: CachedRpcs::new(verdicts),
    };
    Ok(RpcService {
        middleware: Arc::new(middleware),
        handlers: routes.prepare(),
        main: Handle::current(),
    })
}

fn ended_early(
    name: &'static str,
    ended: Option<Result<(), tokio::task::JoinError>>,
) -> ServeError {
    match ended {
        Some(Err(failed)) => failed.into(),
        _ => ServeError::TaskEnded(name),
    }
}
