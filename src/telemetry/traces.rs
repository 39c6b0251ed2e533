//! Spans of calls, by OpenTelemetry's RPC and database conventions: one for a call and one for
//! each use that it makes of the store. Whether a call is traced is decided before anything is
//! made, so that all others cost nothing. Nothing that a caller sent stands on a span.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail, ensure};
use http::{HeaderMap, Uri, uri::Scheme};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{
    WithExportConfig as _, WithTonicConfig as _, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler as SdkSampler, SdkTracer, SdkTracerProvider, Span, SpanExporter as _},
};

use super::{context, export};
use crate::config;

/// The one tracer of the process; there is none where no collector is named.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Spans on their way, until [`Exporting::finish`].
#[derive(Debug)]
pub struct Exporting(export::Sending);

impl Exporting {
    /// Sends what waits; takes two seconds at most.
    pub async fn finish(self) {
        self.0.finish().await;
    }
}

/// Begins to send spans, if there is a collector to send them to; `instance` tells this
/// process from others. Needs a runtime.
///
/// # Errors
/// An address that is none; it is not quoted, since one can hold a password.
pub fn begin(settings: &config::Traces, instance: String) -> anyhow::Result<Option<Exporting>> {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(None);
    };
    let scheme = scheme_of(endpoint).context("--otlp-endpoint")?;
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(export::EXPORT_FOR);
    if scheme == Scheme::HTTPS {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build();
    let mut exporter =
        exporter.map_err(|error| anyhow::anyhow!("--otlp-endpoint: cannot be used: {error}"))?;
    let resource = Resource::builder_empty()
        .with_service_name("stacktoken")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build();
    exporter.set_resource(&resource);
    let (queue, sending) = export::begin(exporter);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_resource(resource)
        // Only what is to be exported is made at all.
        .with_sampler(SdkSampler::AlwaysOn)
        .build();
    let begun = TRACER.set(provider.tracer("stacktoken"));
    ensure!(begun.is_ok(), "this process sends spans already");
    Ok(Some(Exporting(sending)))
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
    /// Of 2^64 equally likely draws, those below this are taken.
    below: u64,
    state: AtomicU64,
}

impl Sampler {
    /// Takes this share of the calls of which no caller has decided; `seed` is any number.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "saturates, and one in 2^53 is exact enough"
    )]
    pub const fn new(settings: &config::Traces, seed: u64) -> Self {
        Self {
            below: (settings.trace_sample_ratio * u64::MAX as f64) as u64,
            state: AtomicU64::new(seed),
        }
    }

    /// The trace of a call to this RPC (`None` for an unknown one): begun if the caller's own
    /// is sampled, or if there is none and this call is drawn. `fit` is for [`context`].
    pub fn begin(
        &self,
        headers: &HeaderMap,
        fit: impl Fn(&str) -> bool,
        rpc_method: Option<&'static str>,
    ) -> CallTrace {
        let theirs = context::extract(headers, fit);
        let tracer = TRACER.get().filter(|_| match &theirs {
            Some(theirs) => theirs.span().span_context().is_sampled(),
            None => self.draws(),
        });
        let Some(tracer) = tracer else {
            return CallTrace {
                context: theirs,
                open: false,
            };
        };
        let parent = theirs.unwrap_or_default();
        let span = SpanBuilder::from_name(rpc_method.unwrap_or("grpc"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", rpc_method.unwrap_or("_OTHER")),
            ])
            .start_with_context(tracer, &parent);
        CallTrace {
            context: Some(parent.with_span(span)),
            open: true,
        }
    }

    /// The next draw of a sequence that has no pattern to hit by chance: `SplitMix64`.
    fn draws(&self) -> bool {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut drawn = self.state.fetch_add(STEP, Ordering::Relaxed);
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        drawn < self.below || self.below == u64::MAX
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The gRPC status by name.
    pub status: &'static str,
    /// Why, where it is an error that has a reason of the contract.
    pub reason: Option<&'static str>,
}

/// The trace of one call: with a span of ours, with the caller's id only, or none.
#[derive(Debug, Default)]
pub struct CallTrace {
    context: Option<Context>,
    open: bool,
}

impl CallTrace {
    /// Runs what belongs to the call.
    pub async fn within<F: Future>(&self, work: F) -> F::Output {
        context::within(self.context.as_ref(), work).await
    }

    /// Notes how the call ended.
    pub fn end(&mut self, outcome: Outcome) {
        let Some(context) = self.context.as_ref().filter(|_| self.open) else {
            return;
        };
        self.open = false;
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.status_code", outcome.status));
        if outcome.status != "OK" {
            let reason = outcome.reason.unwrap_or(outcome.status);
            span.set_attribute(KeyValue::new("error.type", reason));
        }
        if is_fault(outcome.status) {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl Drop for CallTrace {
    /// A call that its client gave up is dropped before it ends.
    fn drop(&mut self) {
        self.end(Outcome {
            status: "CANCELLED",
            reason: None,
        });
    }
}

/// Whether a server that answers this is at fault, by the conventions.
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

/// A use of the store by a call that is traced; of any other it is nothing.
#[derive(Debug)]
pub struct StoreSpan(Option<Span>);

impl StoreSpan {
    /// Begins where what runs now belongs to a span of ours.
    #[must_use]
    pub fn begin(system: &'static str, operation: &'static str) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        Self(Context::map_current(|context| {
            context.span().is_recording().then(|| {
                SpanBuilder::from_name(operation)
                    .with_kind(SpanKind::Client)
                    .with_attributes([
                        KeyValue::new("db.system.name", system),
                        KeyValue::new("db.operation.name", operation),
                    ])
                    .start_with_context(tracer, context)
            })
        }))
    }

    /// Ends it, with what failed if anything did.
    pub fn end(mut self, failure: Option<&'static str>) {
        if let (Some(span), Some(failure)) = (&mut self.0, failure) {
            span.set_attribute(KeyValue::new("error.type", failure));
            span.set_status(Status::error(""));
        }
    }
}
