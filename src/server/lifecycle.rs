//! From start to end: every task is awaited, and one that ends by itself stops the process,
//! so that it is never half alive. SIGTERM is answered in order: not serving, still
//! answering, no longer accepting, calls finished, usage and audit flushed.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::HealthServer;
use tower::Layer as _;

use super::{
    Board, Listeners, admin,
    connections::Connections,
    health,
    layers::{Gate, GateLayer},
    openings::Openings,
    places::Places,
    tls::Tls,
};
use crate::{
    app::{App, RefusalWriter},
    auth::Authenticator,
    config::Tuning,
    domain::{
        entropy::{Entropy, Spread},
        routes::RouteTable,
    },
    grpc::{self, MessageLimits},
    telemetry::{sampling, traces::Sampler},
};

/// How long to go on answering after SIGTERM, where nobody says.
const DRAIN_DELAY: Duration = Duration::from_secs(5);
/// How long usage and the audit of refusals may take to be flushed at the end.
const FLUSH_FOR: Duration = Duration::from_secs(5);

/// The largest request to health or reflection, in bytes: names of services and symbols.
const MAX_OPEN_REQUEST: usize = 4096;

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket could not be bound.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// Which setting.
        setting: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A task ended that never should.
    #[error("the task `{0}` ended unexpectedly")]
    TaskEnded(&'static str),
    /// A task panicked.
    #[error("a task failed")]
    TaskFailed(#[from] tokio::task::JoinError),
    /// The reflection service could not be built from the contract.
    #[error("the contract does not reflect")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What is to be served.
pub(super) struct Service {
    pub app: Arc<App>,
    pub authenticator: Arc<Authenticator>,
    pub routes: Arc<RouteTable>,
    pub entropy: Arc<dyn Entropy>,
    pub tls: Option<Arc<Tls>>,
    pub board: Board,
}

pub(super) async fn run(
    service: Service,
    refusals: RefusalWriter,
    tuning: &Tuning,
    listeners: Listeners,
    serving: impl FnOnce() + Send + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let board = service.board.clone();
    let watched = Arc::downgrade(&service.app);
    let mut tasks = begin(&service, tuning, listeners.admin, &stop);
    let last_usage = service.app.usage_writer();
    let mut announcing = JoinSet::new();
    let announced = board.clone();
    announcing.spawn(async move {
        health::both_serving(announced).await;
        // It may print, to a reader that stalls.
        let _ = tokio::task::spawn_blocking(serving).await;
    });
    let mut writing = JoinSet::new();
    writing.spawn(refusals.run());

    let accepting = CancellationToken::new();
    let mut grpc = Box::pin(serve_grpc(
        service,
        tuning,
        listeners.grpc,
        accepting.clone(),
    )?);
    tokio::select! {
        () = &mut grpc => return Err(ServeError::TaskEnded("grpc")),
        ended = tasks.next_end() => return Err(ended),
        ended = writing.join_next() => return Err(ended_early("audit of refusals", ended)),
        () = stop.cancelled() => {}
    }

    let delay = tuning.drain_delay.unwrap_or(DRAIN_DELAY);
    tracing::info!(?delay, grace = ?tuning.drain_grace, "draining");
    board.drain();
    tokio::select! {
        () = &mut grpc => return Err(ServeError::TaskEnded("grpc")),
        () = sleep(delay) => {}
    }
    accepting.cancel();
    board.close();
    if let Some(app) = watched.upgrade() {
        app.close_watches();
    }
    let mut out_of_time = Box::pin(sleep(tuning.drain_grace + FLUSH_FOR));
    if timeout(tuning.drain_grace, &mut grpc).await.is_err() {
        tracing::warn!("calls were still at work at the end of the drain grace");
    }
    // With the last handle on the use cases gone, the writer of refusals knows that no more
    // will come, writes what it has and ends.
    drop(grpc);
    drop(tasks);
    // What calls have left of their time is for this, too.
    let flushed = future::join(last_usage.write_all(), writing.join_next());
    tokio::select! {
        _ = flushed => {}
        () = &mut out_of_time => {
            tracing::warn!("refusals, or when tokens were used, were left unwritten");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Begins everything that goes on for as long as the process, besides answering calls.
fn begin(
    service: &Service,
    tuning: &Tuning,
    admin_listener: TcpListener,
    stop: &CancellationToken,
) -> Tasks {
    let mut tasks = Tasks::default();
    let (app, authenticator) = (service.app.clone(), service.authenticator.clone());
    tasks.run("keys", async move { authenticator.keep_fresh().await });
    let (reader, beater, listener) = (app.clone(), app.clone(), app.clone());
    tasks.run("feed", async move { reader.keep_reading().await });
    tasks.run("heartbeat", async move { beater.keep_beating().await });
    tasks.run("listener", async move { listener.keep_listening().await });
    let (keeper, lookout, stopping) = (app.clone(), app.clone(), stop.clone());
    tasks.run("housekeeping", async move {
        keeper.keep_house(&stopping).await;
    });
    let stopping = stop.clone();
    tasks.run("expiry", async move {
        lookout.keep_looking_ahead(&stopping).await;
    });
    let probing = (service.board.clone(), app, service.authenticator.clone());
    tasks.run(
        "health",
        health::keep_probing(probing.0, probing.1, probing.2),
    );
    if let Some(tls) = service.tls.clone() {
        let metrics = service.app.metrics().clone();
        tasks.run("tls", async move { tls.keep_fresh(&metrics).await });
    }
    let usage = service.app.usage_writer();
    let every = tuning.usage_flush_every;
    tasks.run("usage", async move { usage.keep_writing(every).await });
    tasks.run("log sampling", sampling::keep_time());
    let metrics = service.app.metrics().clone();
    let router = admin::router(metrics.clone(), service.board.clone());
    tasks.run("admin", admin::serve(admin_listener, router, metrics));
    tasks
}

fn serve_grpc(
    service: Service,
    tuning: &Tuning,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + use<>, ServeError> {
    let metrics = service.app.metrics().clone();
    let limits = MessageLimits {
        decoding: tuning.max_request_bytes,
        encoding: tuning.max_response_bytes,
    };
    let mut routes = grpc::routes(&service.app, service.routes.clone(), limits).add_service(
        HealthServer::new(service.board.clone()).max_decoding_message_size(MAX_OPEN_REQUEST),
    );
    if tuning.reflection {
        routes = grpc::add_reflection(routes, MAX_OPEN_REQUEST)?;
    }
    let gate = Gate {
        app: service.app,
        authenticator: service.authenticator.clone(),
        places: Places::new(tuning),
        max_request_bytes: tuning.max_request_bytes,
        openings: Openings::new(tuning.max_watches),
        max_header_bytes: tuning.max_header_bytes,
        deadline: tuning.deadline,
        sampler: Sampler::new(&tuning.traces),
        ids: Spread::seeded(service.entropy.as_ref()),
    };
    let connections = Connections {
        service: GateLayer(Arc::new(gate)).layer(routes.prepare()),
        tls: service.tls,
        authenticator: service.authenticator,
        entropy: service.entropy,
        metrics,
        tuning: tuning.clone(),
    };
    Ok(connections.serve(listener, stop))
}

/// Tasks that run for as long as the process: the end of any is an error.
#[derive(Default)]
struct Tasks(JoinSet<&'static str>);

impl Tasks {
    fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    async fn next_end(&mut self) -> ServeError {
        match self.0.join_next().await {
            Some(Ok(name)) => ServeError::TaskEnded(name),
            Some(Err(failed)) => failed.into(),
            None => ServeError::TaskEnded("all"),
        }
    }
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
