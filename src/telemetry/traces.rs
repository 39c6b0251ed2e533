//! Creates spans according to OpenTelemetry's RPC and database conventions: one span per call, and
//! one per operation of the store. Whether a call is traced is decided before any span is created,
//! so that other calls have no overhead. Spans contain no data that callers send.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::{HeaderMap, Uri, uri::Scheme};
use opentelemetry::{
    Context, KeyValue,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{
    WithExportConfig as _, WithTonicConfig as _, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    resource::EnvResourceDetector,
    trace::{Sampler as SdkSampler, SdkTracerProvider},
};
use tokio::runtime::Handle;
use tracing::{Metadata, Span, field::Empty, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, Registry, filter::FilterFn};

use super::{context, export};
use crate::config;

/// The target of the spans that go to the collector.
const TARGET: &str = "stacktoken::trace";
/// How long the export of the remaining spans may take at shutdown.
const FLUSH_FOR: Duration = Duration::from_millis(1500);

/// Returns whether this metadata describes a span for the collector. Returns false for log lines.
pub(super) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && metadata.is_span()
}

/// The export of spans, which runs until [`Exporting::finish`] is called.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Returns a layer that passes only our spans to the exporter, without extra attributes.
    pub(super) fn layer(&self) -> impl Layer<Registry> + Send + Sync + use<> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("stacktoken"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false)
            .with_filter(FilterFn::new(is_ours).with_max_level_hint(LevelFilter::INFO))
    }

    /// Exports the remaining spans. Blocks for at most two seconds.
    pub fn finish(self) {
        if self.0.shutdown_with_timeout(FLUSH_FOR).is_err() {
            tracing::warn!("spans were left unsent");
        }
    }
}

/// The attributes that identify this process in its spans.
#[derive(Debug)]
pub struct Identity {
    /// `service.name`. If `None`, the value comes from `OTEL_RESOURCE_ATTRIBUTES`, or else is
    /// `stacktoken`.
    pub service: Option<String>,
    /// `service.instance.id`.
    pub instance: String,
}

impl Identity {
    fn resource(self) -> Resource {
        let own = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", self.instance),
        ];
        let resource = Resource::builder_empty()
            .with_service_name("stacktoken")
            .with_attributes(own)
            .with_detector(Box::new(EnvResourceDetector::new()));
        match self.service {
            Some(service) => resource.with_service_name(service).build(),
            None => resource.build(),
        }
    }
}

/// Starts to export spans if a collector is configured. Must be called within a tokio runtime.
///
/// # Errors
/// Returns an error if the endpoint is invalid. The error does not quote the endpoint, because it
/// can contain a password.
pub fn begin(settings: &config::Traces, identity: Identity) -> anyhow::Result<Option<Exporting>> {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(None);
    };
    let scheme = scheme_of(endpoint).context("--otlp-endpoint (or STACKTOKEN_OTLP_ENDPOINT)")?;
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(export::EXPORT_FOR);
    if scheme == Scheme::HTTPS {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build();
    let exporter =
        exporter.map_err(|error| anyhow::anyhow!("--otlp-endpoint: cannot be used: {error}"))?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(export::Queue::new(exporter, Handle::current()))
        .with_resource(identity.resource())
        // Calls are sampled before a span is created, so every span is exported.
        .with_sampler(SdkSampler::AlwaysOn)
        .build();
    Ok(Some(Exporting(provider)))
}

fn scheme_of(endpoint: &str) -> anyhow::Result<Scheme> {
    const EXPECTED: &str = "expected http://HOST:PORT or https://HOST:PORT of an OTLP/gRPC port";
    let Ok(uri) = endpoint.parse::<Uri>() else {
        bail!("not a URL: {EXPECTED}");
    };
    let plain = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    ensure!(
        plain && uri.path() == "/" && uri.query().is_none(),
        EXPECTED
    );
    let scheme = uri
        .scheme()
        .filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
    scheme.cloned().context(EXPECTED)
}

/// Decides which calls are traced.
#[derive(Debug)]
pub struct Sampler {
    /// A call is traced if its random 64-bit number is below this value.
    below: u64,
}

impl Sampler {
    /// Creates a sampler with the configured ratio. The ratio applies to calls without a trace
    /// context, whose callers have not decided whether to trace them.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates, and one in 2^53 is exact enough"
    )]
    pub const fn new(settings: &config::Traces) -> Self {
        Self {
            below: (settings.trace_sample_ratio * u64::MAX as f64) as u64,
        }
    }

    /// Starts the trace of a call to `rpc_method`, which is `None` for an unknown RPC. Creates a
    /// span if the caller's trace is sampled, or if the caller sent no trace and the random number
    /// from `draw` selects this call. `fit` decides whether the caller's `tracestate` may be passed
    /// on.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        fit: impl Fn(&str) -> bool,
        draw: impl FnOnce() -> u64,
        rpc_method: Option<&'static str>,
    ) -> CallTrace {
        let theirs = context::extract(headers, fit);
        let sampled = match &theirs {
            Some(theirs) => theirs.span().span_context().is_sampled(),
            None => self.takes(draw()),
        };
        if !sampled {
            return CallTrace {
                span: Span::none(),
                theirs,
            };
        }
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "call",
            otel.name = rpc_method.unwrap_or("grpc"),
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = rpc_method.unwrap_or("_OTHER"),
            rpc.response.status_code = Empty,
            "error.type" = Empty,
        );
        if let Some(theirs) = &theirs {
            // This fails only if there is no collector and therefore no span.
            let _ = span.set_parent(theirs.clone());
        }
        CallTrace { span, theirs }
    }

    /// Returns whether a call with this random number is traced, if its caller sent no trace.
    #[must_use]
    pub const fn takes(&self, drawn: u64) -> bool {
        drawn < self.below || self.below == u64::MAX
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The name of the gRPC status.
    pub status: &'static str,
    /// The reason of the error, if the call failed with a reason of the API contract.
    pub reason: Option<&'static str>,
}

/// The trace of one call. It has our own span, only the caller's context, or neither.
#[derive(Debug)]
pub struct CallTrace {
    span: Span,
    theirs: Option<Context>,
}

impl CallTrace {
    /// Returns an empty trace, for a call that must not be traced.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            span: Span::none(),
            theirs: None,
        }
    }

    /// Returns whether the call has a span, or a trace context of its caller that log lines must
    /// name.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.theirs.is_some() || !self.span.is_none()
    }

    /// Runs a function within the trace of this call.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        context::scope(self.theirs.as_ref(), &self.span, work)
    }

    /// Runs a future within the trace of this call.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        context::within(self.theirs.as_ref(), &self.span, work).await
    }

    /// Records how the call ended.
    pub fn end(&mut self, outcome: Outcome) {
        let span = std::mem::replace(&mut self.span, Span::none());
        span.record("rpc.response.status_code", outcome.status);
        if outcome.status != "OK" {
            span.record("error.type", outcome.reason.unwrap_or(outcome.status));
        }
        if is_fault(outcome.status) {
            span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for CallTrace {
    /// Records the status `CANCELLED` if the call is dropped before it ends. This happens only if
    /// the client cancels the call.
    fn drop(&mut self) {
        self.end(Outcome {
            status: "CANCELLED",
            reason: None,
        });
    }
}

/// Returns whether OpenTelemetry's conventions count this status as an error of the server.
fn is_fault(status: &str) -> bool {
    matches!(
        status,
        "UNKNOWN"
            | "DEADLINE_EXCEEDED"
            | "UNIMPLEMENTED"
            | "INTERNAL"
            | "UNAVAILABLE"
            | "DATA_LOSS"
    )
}

/// The span of one operation of the store. Empty unless the call is traced.
#[derive(Debug)]
pub struct StoreSpan(Span);

impl StoreSpan {
    /// Starts a span if the current call is traced.
    #[must_use]
    pub fn begin(system: &'static str, operation: &'static str) -> Self {
        if !Context::map_current(|context| context.span().is_recording()) {
            return Self(Span::none());
        }
        Self(tracing::info_span!(
            target: TARGET,
            "store",
            otel.name = operation,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = system,
            db.operation.name = operation,
            "error.type" = Empty,
        ))
    }

    /// Ends the span, and records the failure if the operation failed.
    pub fn end(self, failure: Option<&'static str>) {
        if let Some(failure) = failure {
            self.0.record("error.type", failure);
            self.0.record("otel.status_code", "ERROR");
        }
    }
}
