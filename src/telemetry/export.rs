//! The way of finished spans to the collector: a bounded queue and one task that empties it.
//! A collector that is dead or does not read costs spans, which are counted, and never time
//! of a call.

use std::{mem, sync::LazyLock, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// How many finished spans may wait; more are dropped.
const QUEUE: usize = 2048;
/// How many spans are sent at once.
const BATCH: usize = 512;
/// How long a span may wait for others to be sent with it.
const GATHER_FOR: Duration = Duration::from_millis(500);
/// How long the collector may take for a batch.
pub(super) const EXPORT_FOR: Duration = Duration::from_secs(1);
/// How long to leave a collector alone that failed.
const REST_FOR: Duration = Duration::from_secs(1);
/// How long sending what is left may take at the end.
const FLUSH_FOR: Duration = Duration::from_millis(1500);

/// What became of spans.
#[derive(Debug, Default)]
pub struct Lost {
    /// Spans that no collector took.
    pub spans: Counter,
    /// Batches of spans that the collector did not take.
    pub batches: Counter,
}

/// What this process lost so far.
pub static LOST: LazyLock<Lost> = LazyLock::new(Lost::default);

/// Takes finished spans off the hands of calls.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

/// Sends spans until it is told to finish.
#[derive(Debug)]
pub(super) struct Sending {
    closing: CancellationToken,
    task: JoinHandle<()>,
}

/// Begins to send to this exporter; needs a runtime.
pub(super) fn begin(exporter: impl SpanExporter + 'static) -> (Queue, Sending) {
    let (sender, spans) = mpsc::channel(QUEUE);
    let closing = CancellationToken::new();
    let worker = Worker {
        spans,
        exporter,
        closing: closing.clone(),
        failing: false,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "awaited by finish; traces end for themselves and take no call with them"
    )]
    let task = tokio::spawn(worker.run());
    (Queue(sender), Sending { closing, task })
}

impl Sending {
    /// Sends what waits, for a bounded time.
    pub async fn finish(mut self) {
        self.closing.cancel();
        if time::timeout(FLUSH_FOR, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!("spans were left unsent");
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            LOST.spans.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    // The task ends when it is told to finish, not when the tracer goes.
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Worker<E> {
    spans: mpsc::Receiver<SpanData>,
    exporter: E,
    closing: CancellationToken,
    failing: bool,
}

impl<E: SpanExporter> Worker<E> {
    async fn run(mut self) {
        while !self.closing.is_cancelled() && !self.spans.is_closed() {
            let batch = self.gather().await;
            if !self.send(batch).await {
                let _ = time::timeout(REST_FOR, self.closing.cancelled()).await;
            }
        }
        self.spans.close();
        let mut batch = Vec::new();
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            let batch = mem::take(&mut batch);
            if !self.send(batch).await {
                break;
            }
        }
        LOST.spans.inc_by(self.spans.len() as u64);
    }

    /// A batch that is full, or as full as it gets within the time; empty only at the end.
    async fn gather(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        tokio::select! {
            _ = self.spans.recv_many(&mut batch, BATCH) => {}
            () = self.closing.cancelled() => return batch,
        }
        let enough = time::sleep(GATHER_FOR);
        tokio::pin!(enough);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                count = self.spans.recv_many(&mut batch, room) => if count == 0 { break },
                () = &mut enough => break,
                () = self.closing.cancelled() => break,
            }
        }
        batch
    }

    async fn send(&mut self, batch: Vec<SpanData>) -> bool {
        let count = batch.len();
        if count == 0 {
            return true;
        }
        let sent = time::timeout(EXPORT_FOR, self.exporter.export(batch)).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {EXPORT_FOR:?}")),
        };
        if problem.is_some() {
            LOST.batches.inc();
            LOST.spans.inc_by(count as u64);
        }
        // Once at each turn: a collector can be away for hours.
        match (&problem, self.failing) {
            (Some(problem), false) => tracing::warn!(problem, "the collector takes no spans"),
            (None, true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        self.failing = problem.is_some();
        !self.failing
    }
}
