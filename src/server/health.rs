//! The health service, which reports the result of the last probe. It follows the gRPC health
//! checking protocol even where tonic-health does not: a Watch of an unknown name answers
//! SERVICE_UNKNOWN and keeps the stream open.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient, health_server::Health,
};

use super::request_id::REQUEST_ID;
use crate::{
    app::App,
    auth::Authenticator,
    domain::clock::ClockFault,
    grpc::status::{self, Failure},
    metrics::{Metrics, ServiceLabel},
};

/// Interval at which the store and the keys are probed. It is short enough that a change of health
/// is visible within two seconds.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long the store may take to answer a probe.
const PROBE_FOR: Duration = Duration::from_secs(1);

/// What a service must be able to do in order to be SERVING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Answer verdicts and other reads.
    Answer,
    /// Make changes.
    Change,
}

impl Capability {
    const ALL: [Self; 2] = [Self::Answer, Self::Change];

    /// Returns the service whose name stands for the capability in logs.
    const fn service(self) -> &'static str {
        match self {
            Self::Answer => INTROSPECTION,
            Self::Change => TOKEN,
        }
    }
}

/// The name for the health of the process as a whole.
pub(super) const OVERALL: &str = "";
const INTROSPECTION: &str = "stacktoken.v1.IntrospectionService";
const TOKEN: &str = "stacktoken.v1.TokenService";

/// The names that the health service knows, each with the capability that the service needs. A
/// service that only reads needs [`Capability::Answer`], and one that writes needs
/// [`Capability::Change`]. A test compares the names with the services that are served.
pub(super) const SERVICES: &[(&str, Capability)] = &[
    (OVERALL, Capability::Answer),
    (INTROSPECTION, Capability::Answer),
    ("stacktoken.v1.ActionService", Capability::Answer),
    ("stacktoken.audit.v1.AuditService", Capability::Answer),
    ("envoy.service.auth.v3.Authorization", Capability::Answer),
    (TOKEN, Capability::Change),
    ("stacktoken.v1.LeakService", Capability::Change),
    ("stacktoken.v1.ExchangeService", Capability::Change),
    ("stacktoken.admin.v1.StackService", Capability::Change),
];

/// The names that have their own gauge. The health of the other services always equals one of
/// these, so further gauges would only repeat its alert.
const MEASURED: [(&str, Capability); 3] = [
    (OVERALL, Capability::Answer),
    (INTROSPECTION, Capability::Answer),
    (TOKEN, Capability::Change),
];

fn capability(service: &str) -> Option<Capability> {
    let known = SERVICES.iter().find(|(name, _)| *name == service);
    known.map(|(_, capability)| *capability)
}

/// The health of all services. No service is SERVING before the first successful probe or after
/// draining has begun.
#[derive(Clone, Debug)]
pub struct HealthBoard {
    states: [Arc<watch::Sender<bool>>; 2],
    clock_behind: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
    closing: CancellationToken,
}

impl HealthBoard {
    /// Creates a board on which no service is SERVING yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let board = Self {
            states: std::array::from_fn(|_| Arc::new(watch::Sender::new(false))),
            clock_behind: Arc::default(),
            metrics,
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        };
        for capability in Capability::ALL {
            board.set(capability, false);
        }
        board
    }

    /// Returns whether the services that need this capability are SERVING.
    #[must_use]
    pub fn is_serving(&self, capability: Capability) -> bool {
        *self.state(capability).borrow()
    }

    /// Returns the health of every service, by its name.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, HealthCheckResponse)> {
        let each = SERVICES.iter();
        each.map(|(name, needs)| {
            let health = answer(status_of(self.is_serving(*needs)));
            ((*name).to_owned(), health)
        })
    }

    /// Returns whether the clock was set back so far that only a restart can help soon.
    pub(super) fn is_clock_behind(&self) -> bool {
        self.clock_behind.load(Ordering::Acquire)
    }

    /// Marks every service as NOT_SERVING from now on, whatever the probes find.
    pub(super) fn drain(&self) {
        self.draining.cancel();
        for capability in Capability::ALL {
            self.set(capability, false);
        }
    }

    /// Ends all Watch streams of the health service.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    fn state(&self, capability: Capability) -> &watch::Sender<bool> {
        &self.states[capability as usize]
    }

    fn set(&self, capability: Capability, serving: bool) {
        let serving = serving && !self.draining.is_cancelled();
        self.state(capability).send_if_modified(|state| {
            let changed = *state != serving;
            *state = serving;
            if changed {
                // The change is logged before watchers see the new state, so that their output
                // comes after this line.
                tracing::info!(service = capability.service(), serving, "health changed");
            }
            changed
        });
        for (service, _) in MEASURED.iter().filter(|(_, needs)| *needs == capability) {
            self.metrics
                .serving
                .get_or_create(&ServiceLabel { service })
                .set(i64::from(serving));
        }
    }
}

/// Probes the store and the keys periodically. Never returns.
pub(super) async fn run_probes(
    board: HealthBoard,
    app: Arc<App>,
    authenticator: Arc<Authenticator>,
) {
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    loop {
        ticks.tick().await;
        probe(&board, &app, &authenticator).await;
        app.evict_idle_callers();
    }
}

async fn probe(board: &HealthBoard, app: &App, authenticator: &Authenticator) {
    let (reads, writes) = tokio::join!(
        tokio::time::timeout(PROBE_FOR, app.store().probe_read()),
        tokio::time::timeout(PROBE_FOR, app.store().beat(app.clock().now())),
    );
    if reads.is_err() || writes.is_err() {
        app.store().renew_silent_connections().await;
    }
    let (reads, writes) = (matches!(reads, Ok(Ok(()))), matches!(writes, Ok(Ok(_))));
    // Once the database is read-only, existing sessions may still be able to write, but new
    // sessions cannot.
    let writes = writes && !app.is_read_only();
    // The gauge is set at each probe, because the database URL may have been reloaded.
    let unverified = !app.store().is_private();
    app.metrics().database_unverified.set(unverified.into());
    let keys = authenticator.readiness();
    let without = i64::try_from(keys.unavailable.len()).unwrap_or(i64::MAX);
    app.metrics().issuers_without_keys.set(without);
    // The order of these reads matters. A heartbeat compares the clock before it makes the cache
    // fresh. So if the first two values are true, the fault that is read after them reflects that
    // comparison.
    let is_fresh = app.is_fresh();
    let is_compared = app.clock().is_compared();
    let fault = app.watch_clock();
    let behind = fault == Some(ClockFault::Behind);
    board.clock_behind.store(behind, Ordering::Release);
    let is_right = is_compared && fault.is_none();
    // With a shared store, a replica can answer as long as its cache is fresh. If only this process
    // uses the store, the cache is always fresh, so the store itself must be readable.
    let answers =
        is_right && is_fresh && (reads || app.store().has_other_writers()) && keys.services;
    board.set(Capability::Answer, answers);
    board.set(
        Capability::Change,
        is_right && reads && writes && keys.users,
    );
}

/// Waits until every service is SERVING.
pub(super) async fn all_serving(board: HealthBoard) {
    for capability in Capability::ALL {
        // The wait cannot fail, because the board holds the sender.
        let _ = board
            .state(capability)
            .subscribe()
            .wait_for(|serving| *serving)
            .await;
    }
}

#[tonic::async_trait]
impl Health for HealthBoard {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let Some(capability) = capability(&request.get_ref().service) else {
            return Err(status::health_unknown(
                SERVICES.iter().map(|(name, _)| *name),
            ));
        };
        Ok(Response::new(answer(status_of(
            self.is_serving(capability),
        ))))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let states = match capability(&request.get_ref().service) {
            Some(capability) => WatchStream::new(self.state(capability).subscribe())
                .map(status_of)
                .boxed(),
            None => futures_util::stream::once(async { ServingStatus::ServiceUnknown })
                .chain(futures_util::stream::pending())
                .boxed(),
        };
        let closed = self.closing.clone().cancelled_owned();
        let request_id = request.metadata().get(REQUEST_ID);
        let request_id = request_id.and_then(|id| id.to_str().ok());
        let request_id = request_id.unwrap_or_default().to_owned();
        let end = async move { Err(status::of(Failure::Draining, &request_id)) };
        let end = futures_util::stream::once(end);
        let states = states
            .map(|status| Ok(answer(status)))
            .take_until(closed)
            .chain(end);
        Ok(Response::new(states.boxed()))
    }
}

const fn status_of(serving: bool) -> ServingStatus {
    if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// Queries the health service of a server. Returns whether `service` is SERVING.
///
/// # Errors
/// Returns the transport error or the gRPC status that was received instead of an answer.
pub async fn ask(server: tonic::transport::Channel, service: String) -> anyhow::Result<bool> {
    let mut request = Request::new(HealthCheckRequest { service });
    request.set_timeout(PROBE_FOR);
    let answered = HealthClient::new(server).check(request).await?;
    Ok(answered.get_ref().status() == ServingStatus::Serving)
}
