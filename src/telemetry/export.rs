//! The way of finished spans to the collector: the SDK's own queue and thread, held to bounds
//! and counted at both ends, since the SDK tells nobody what it drops. A collector that is
//! dead or does not read costs spans, and never time of a call.

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

/// How many finished spans may wait; more are dropped.
const QUEUE: usize = 2048;
/// How many spans are sent at once.
const BATCH: usize = 512;
/// How long a span may wait for others to be sent with it.
const GATHER_FOR: Duration = Duration::from_millis(500);
/// How long the collector may take for a batch.
pub(super) const EXPORT_FOR: Duration = Duration::from_secs(1);

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

/// Takes finished spans off the hands of calls. It counts those that wait, so that the queue
/// behind it is never full.
#[derive(Debug)]
pub(super) struct Queue {
    inner: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// A queue in front of this exporter, whose connections live in `runtime`.
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

/// An exporter that is given up after a time, and whose failures are counted and told.
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
        // The exporter's own limit does not cover a connection that never comes about. The
        // SDK's thread is outside the runtime, whose clock this needs.
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
        // Once at each turn: a collector can be away for hours.
        let failed = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(problem) if !failed => tracing::warn!(%problem, "the collector takes no spans"),
            Ok(()) if failed => tracing::info!("the collector takes spans again"),
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
