//! The W3C Trace Context of a call. It is extracted from the request, injected into outgoing
//! requests, and added to log lines. Headers that cannot be parsed are ignored.

use std::{future::poll_fn, pin::pin, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

static W3C: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// Extracts the caller's trace context, if the request has one. `fit` decides whether a
/// `tracestate` may be passed on, because its content is vendor-specific and would reach the
/// collector.
pub(super) fn extract(headers: &HeaderMap, fit: impl Fn(&str) -> bool) -> Option<Context> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    // More than one `traceparent` is invalid.
    let (Some(_), None) = (named.next(), named.next()) else {
        return None;
    };
    let context = W3C.extract_with_context(&Context::new(), &Received { headers, fit });
    context.has_active_span().then_some(context)
}

/// Injects the current trace context, if there is one, into the headers of an outgoing request.
pub fn inject(headers: &mut HeaderMap) {
    Context::map_current(|context| W3C.inject_context(context, &mut Sent(headers)));
}

/// Returns the id of the current trace, if there is one.
#[must_use]
pub fn trace_id() -> Option<TraceId> {
    Context::map_current(|context| {
        let trace_id = context.span().span_context().trace_id();
        (trace_id != TraceId::INVALID).then_some(trace_id)
    })
}

/// Runs a future within a span and, if one is given, a trace context.
pub(super) async fn within<F: Future>(
    context: Option<&Context>,
    span: &Span,
    work: F,
) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|task| scope(context, span, || work.as_mut().poll(task))).await
}

/// Runs a function within a span and, if one is given, a trace context.
pub(super) fn scope<T>(context: Option<&Context>, span: &Span, work: impl FnOnce() -> T) -> T {
    let _current = context.map(|context| context.clone().attach());
    let _entered = span.enter();
    work()
}

/// Wraps a future so that it keeps the current trace context and span in any task.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    Place::here().within(work)
}

/// The trace context and span of a call, for work that another task does for the call.
pub struct Place(Context, Span);

impl Place {
    /// Returns the current context and span.
    #[must_use]
    pub fn here() -> Self {
        Self(Context::map_current(Clone::clone), Span::current())
    }

    /// Runs a future in this context and span.
    pub async fn within<F: Future>(self, work: F) -> F::Output {
        within(Some(&self.0), &self.1, work).await
    }
}

struct Received<'a, F> {
    headers: &'a HeaderMap,
    fit: F,
}

impl<F: Fn(&str) -> bool> Extractor for Received<'_, F> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.headers.get(key)?.to_str().ok()?;
        (key != TRACESTATE || (self.fit)(value)).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(HeaderName::as_str).collect()
    }
}

struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}
