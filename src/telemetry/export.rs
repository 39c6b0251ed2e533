//! Exports finished spans to the collector, using the SDK's own queue and thread. Spans are counted
//! before the queue and after it, because the SDK does not report which spans it drops. If the
//! collector is down or stalls, spans are lost, but calls are never delayed.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{runtime::Handle, time};

/// How many finished spans may wait for export. Further spans are dropped.
const QUEUE: usize = 2048;
/// How many spans are exported in one batch.
const BATCH: usize = 512;
/// How long a span may wait for its batch to fill.
const GATHER_FOR: Duration = Duration::from_millis(500);
/// How long the collector may take to accept a batch.
pub(super) const EXPORT_FOR: Duration = Duration::from_secs(1);

/// Counters of lost spans and batches.
#[derive(Debug, Default)]
pub struct Lost {
    /// Spans that did not reach the collector.
    pub spans: Counter,
    /// Batches of spans that could not be exported.
    pub batches: Counter,
}

/// The spans that this process has lost so far.
pub static LOST: LazyLock<Lost> = LazyLock::new(Lost::default);

/// A queue of finished spans. It counts the waiting spans and drops any excess, so that the SDK's
/// queue behind it is never full.
#[derive(Debug)]
pub(super) struct Queue {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// Creates a queue in front of `exporter`, whose connections run on `runtime`.
    pub fn new(exporter: impl SpanExporter + 'static, runtime: Handle) -> Self {
        let waiting = Arc::new(AtomicUsize::new(0));
        let bounds = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(GATHER_FOR)
            .build();
        let exporter = Watched {
            inner: exporter,
            runtime,
            waiting: waiting.clone(),
            failing: AtomicBool::new(false),
        };
        let inner = BatchSpanProcessor::builder(exporter).with_batch_config(bounds);
        Self {
            inner: inner.build(),
            waiting,
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.inner.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            LOST.spans.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter with a timeout, whose failures are counted and logged.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    runtime: Handle,
    waiting: Arc<AtomicUsize>,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        // The exporter's own timeout does not cover a connection that is never established. The
        // SDK's thread runs outside the tokio runtime, and the timer here needs that runtime.
        let sending = {
            let _runtime = self.runtime.enter();
            time::timeout(EXPORT_FOR, self.inner.export(batch))
        };
        let sent = sending.await;
        let sent = sent.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_FOR)));
        if sent.is_err() {
            LOST.batches.inc();
            LOST.spans.inc_by(count as u64);
        }
        // This is logged only when exports begin to fail or succeed again, because a collector can
        // be down for hours.
        let failed = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(problem) if !failed => tracing::warn!(%problem, "the collector accepts no spans"),
            Ok(()) if failed => tracing::info!("the collector accepts spans again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
