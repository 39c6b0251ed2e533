//! The listening ports. They open before the store does and stay open until shutdown. So if the
//! database is unreachable, an orchestrator sees a process that is live but not ready, instead of a
//! process that exits. Connections that are opened before the service is ready stay open when it
//! takes over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::SetOnce, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    HealthBoard, Listeners, ServeError, Tls, admin,
    connections::{self, Protocol, limiter::PortLimits},
    dispatcher::{Dispatcher, MAX_OPEN_REQUEST},
    health_list::HealthService,
    http_port::HttpPort,
    open_rpcs::OpenRpcs,
    port_parts::PortParts,
    rpc_layer::RpcService,
    stream_limits::StreamLimits,
    tasks::{Tasks, unless_failing},
};
use crate::{
    auth::Authenticator,
    config::Tuning,
    domain::{
        clock::Clock,
        entropy::{Entropy, SplitMix64},
    },
    metrics::{Metrics, Process},
    telemetry::{export::LOST, output::lines_dropped, sampling::SUPPRESSED},
};

/// What the ports need to answer calls.
pub struct PortDeps {
    /// Authenticates callers once the store is open.
    pub authenticator: Arc<Authenticator>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// TLS for the gRPC port and the HTTP port. If `None`, the ports are plaintext.
    pub tls: Option<Tls>,
}

/// Open ports, and the tasks behind them.
pub struct Ports {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) tuning: Tuning,
    pub(super) metrics: Arc<Metrics>,
    pub(super) board: HealthBoard,
    pub(super) open_rpcs: Arc<OpenRpcs>,
    pub(super) tasks: Tasks,
    dispatcher: Arc<Dispatcher>,
    /// The tasks that serve the gRPC port and the HTTP port. Once accepting has stopped, each task
    /// ends with its last connection.
    serving: JoinSet<&'static str>,
    accepting: CancellationToken,
    draining: CancellationToken,
}

impl Listeners {
    /// Starts to answer calls on all ports before the store is open.
    #[must_use]
    pub fn open(self, front: PortDeps, tuning: &Tuning) -> Ports {
        self.open_as(front, tuning, true)
    }

    /// Like [`Self::open`], but if `is_waiting` is false, early calls wait for the service instead
    /// of being refused.
    pub(super) fn open_as(self, front: PortDeps, tuning: &Tuning, is_waiting: bool) -> Ports {
        let metrics = Arc::new(Metrics::of_process(Process {
            spans_dropped: LOST.spans.clone(),
            span_export_failures: LOST.batches.clone(),
            log_lines_suppressed: SUPPRESSED.clone(),
            log_lines_dropped: lines_dropped,
        }));
        if front.tls.is_none() {
            self.warn_of_plaintext(&metrics);
        }
        let board = HealthBoard::new(metrics.clone());
        let open_rpcs = Arc::new(OpenRpcs {
            stream_limits: StreamLimits::new(tuning),
            deadline: tuning.deadline,
        });
        let dispatcher = Arc::new(Dispatcher {
            open_rpcs: open_rpcs.clone(),
            health: HealthService::new(board.clone(), MAX_OPEN_REQUEST),
            metrics: metrics.clone(),
            clock: front.clock.clone(),
            ids: SplitMix64::seeded(front.entropy.as_ref()),
            max_request_bytes: tuning.max_request_bytes,
            service: SetOnce::new(),
            is_waiting: AtomicBool::new(is_waiting),
        });
        let tls = front.tls.map(Arc::new);
        let count = 1 + usize::from(self.http.is_some());
        let draining = CancellationToken::new();
        let shared = PortParts {
            tls: tls.clone(),
            authenticator: front.authenticator.clone(),
            entropy: front.entropy.clone(),
            metrics: metrics.clone(),
            tuning: tuning.clone(),
            limits: PortLimits::new(tuning, (count, connections::threads(tuning)), &metrics),
            draining: draining.clone(),
        };
        let accepting = CancellationToken::new();
        let failing = tuning.failing_task;
        let mut serving = JoinSet::new();
        let grpc = shared.connections(dispatcher.clone(), Protocol::Http2);
        let grpc = grpc.serve(self.grpc, accepting.clone());
        serving.spawn(async move {
            unless_failing("grpc", failing, grpc).await;
            "grpc"
        });
        if let Some(http) = self.http {
            let port = HttpPort::new(dispatcher.clone(), &http.public_url, &shared);
            let port = shared.connections(Arc::new(port), Protocol::Http1);
            let port = port.serve(http.listener, accepting.clone());
            serving.spawn(async move {
                unless_failing("http", failing, port).await;
                "http"
            });
        }
        let mut tasks = Tasks::failing(tuning.failing_task);
        let router = admin::router(metrics.clone(), board.clone());
        tasks.run("admin", admin::serve(self.admin, router, metrics.clone()));
        if let Some(tls) = tls {
            let metrics = metrics.clone();
            tasks.run("tls", async move { tls.keep_fresh(&metrics).await });
        }
        Ports {
            authenticator: front.authenticator,
            clock: front.clock,
            entropy: front.entropy,
            tuning: tuning.clone(),
            metrics,
            board,
            open_rpcs,
            tasks,
            dispatcher,
            serving,
            accepting,
            draining,
        }
    }
}

impl Ports {
    /// Runs `work`. Until it ends, every call except a health check gets `STORE_UNAVAILABLE`.
    ///
    /// # Errors
    /// Returns [`ServeError`] if the task of a port ends meanwhile.
    pub async fn answer_while<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, ServeError> {
        let done = tokio::select! {
            done = work => Ok(done),
            ended = self.next_end() => Err(ended),
        };
        self.dispatcher.is_waiting.store(false, Ordering::Release);
        done
    }

    /// Waits until any task ends, which none of them should, and returns the end as an error.
    pub(super) async fn next_end(&mut self) -> ServeError {
        tokio::select! {
            ended = self.serving.join_next() => match ended {
                Some(Err(failed)) => failed.into(),
                ended => ServeError::TaskEnded(ended.and_then(Result::ok).unwrap_or("grpc")),
            },
            ended = self.tasks.next_end() => ended,
        }
    }

    /// Lets `service` answer all calls from now on.
    pub(super) fn install(&self, service: RpcService) {
        // This cannot fail, because the service is set only once.
        let _ = self.dispatcher.service.set(service);
    }

    /// Stops accepting connections, shuts open connections down gracefully, and ends health
    /// streams. Then waits for the calls in progress, for at most the drain grace.
    pub async fn close(&mut self) {
        self.stop_accepting();
        self.finish(self.tuning.drain_grace).await;
    }

    /// Reports NOT_SERVING, and announces the end of each HTTP/1.1 connection in its next response.
    /// All calls are still answered.
    pub(super) fn begin_drain(&self) {
        self.board.drain();
        self.draining.cancel();
    }

    pub(super) fn stop_accepting(&self) {
        self.accepting.cancel();
        self.board.close();
    }

    /// Waits for the calls in progress, for at most `within`.
    pub(super) async fn finish(&mut self, within: Duration) {
        let ended = async { while self.serving.join_next().await.is_some() {} };
        if timeout(within, ended).await.is_err() {
            tracing::warn!("calls were still running at the end of the drain grace");
        }
    }
}
