//! Tower middleware around every RPC. For a request, it starts the trace, determines the request id
//! and the RPC's rule, and runs the checks of `admission`. For a response, it adds error details
//! and the request id, updates the metrics and writes one log line.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tonic::{Code, body::Body};
use tower::{Layer, Service};

use super::{
    anybody::Anybody,
    connections::{Answering, Peer},
    headers,
    message::discard,
    permits::CallPermits,
    request_id,
    stream_limits::StreamPermit,
};
use crate::{
    app::App,
    auth::{
        Authenticator,
        policy::{self, AllowedCallers, Rule},
    },
    domain::{caller::Call, entropy::SplitMix64, text},
    grpc::status::{self, Failure},
    metrics::CallLabels,
    telemetry::traces::{CallTrace, Outcome, Sampler},
};

/// Shared state of the middleware in front of every RPC.
pub(super) struct RpcMiddleware {
    pub app: Arc<App>,
    pub authenticator: Arc<Authenticator>,
    /// Generates request ids and random numbers for trace sampling. Neither needs to be
    /// unpredictable.
    pub ids: SplitMix64,
    pub permits: CallPermits,
    pub anybody: Arc<Anybody>,
    pub max_header_bytes: u32,
    pub max_request_bytes: usize,
    pub sampler: Sampler,
}

#[derive(Clone)]
pub(super) struct RpcLayer(pub Arc<RpcMiddleware>);

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService {
            inner,
            middleware: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) struct RpcService<S> {
    inner: S,
    middleware: Arc<RpcMiddleware>,
}

impl<S> Service<Request<Body>> for RpcService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Must come before the trace context is extracted from the headers.
        headers::prune(request.headers_mut());
        let rule = rule_of(&request);
        let permit = match self.middleware.open(&request, rule) {
            Ok(permit) => permit,
            Err(failure) => return self.middleware.refuse(request, rule, failure),
        };
        // Calls the instance that was polled until ready, and keeps the clone, which may not be
        // ready.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let middleware = self.middleware.clone();
        Box::pin(async move {
            let mut trace = middleware.trace(request.headers(), rule);
            let passed = middleware.pass(request, (rule, permit), inner);
            let (response, outcome) = trace.within(passed).await;
            trace.end(outcome);
            Ok(response)
        })
    }
}

/// Arrival time and request id of a call.
struct Arrived {
    at: Duration,
    request_id: String,
    /// Whether the client sent the request id.
    named: bool,
}

impl RpcMiddleware {
    fn arrived(&self, headers: &HeaderMap) -> Arrived {
        let sent = request_id::sent(headers);
        let named = sent.is_some();
        let generate = || request_id::generate(self.app.clock(), &self.ids);
        Arrived {
            at: self.app.clock().monotonic(),
            request_id: sent.unwrap_or_else(generate),
            named,
        }
    }

    /// Runs the checks that need no future: the size of the headers, unread responses and stream
    /// limits. They come first because a connection can open hundreds of calls at once, and the
    /// full future of a call is large.
    fn open(
        &self,
        request: &Request<Body>,
        rule: Option<&'static Rule>,
    ) -> Result<Option<StreamPermit>, Failure> {
        if !headers::fit(request.headers(), self.max_header_bytes) {
            let max = self.max_header_bytes;
            return Err(Failure::HeadersTooLarge { max });
        }
        if Peer::share_of(request.extensions()).is_some_and(|share| share.is_behind()) {
            return Err(Failure::Overloaded);
        }
        match rule.filter(|rule| rule.admits == AllowedCallers::Everybody) {
            Some(rule) => self.anybody.open(request, rule),
            None => Ok(None),
        }
    }

    /// Answers a call that [`Self::open`] has refused. The future holds only the response and the
    /// rest of the request message, so it is small.
    fn refuse(
        &self,
        request: Request<Body>,
        rule: Option<&'static Rule>,
        failure: Failure,
    ) -> Answering {
        let arrived = self.arrived(request.headers());
        let mut response = status::of(failure, &arrived.request_id).into_http();
        self.leave(&mut response, rule, None, &arrived);
        let (mut message, at_most) = (request.into_body(), self.max_request_bytes);
        Box::pin(async move {
            discard(&mut message, at_most).await;
            Ok(response)
        })
    }

    /// Starts the trace of a call. Calls to health and reflection are not traced, because they
    /// would drown all others.
    fn trace(&self, headers: &HeaderMap, rule: Option<&'static Rule>) -> CallTrace {
        if rule.is_some_and(|rule| rule.admits == AllowedCallers::Everybody) {
            return CallTrace::none();
        }
        let fit = |state: &str| !text::holds_credential(state);
        let draw = || self.ids.draw();
        self.sampler
            .begin(headers, fit, draw, rule.map(Rule::rpc_method))
    }

    async fn pass<S>(
        &self,
        mut request: Request<Body>,
        (rule, permit): (Option<&'static Rule>, Option<StreamPermit>),
        inner: S,
    ) -> (Response<Body>, Outcome)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let arrived = self.arrived(request.headers());
        let (mut response, call) = self
            .answer(&mut request, (rule, permit), &arrived.request_id, inner)
            .await;
        let (code, reason) = self.leave(&mut response, rule, call.as_ref(), &arrived);
        if code != Code::Ok {
            discard(request.body_mut(), self.max_request_bytes).await;
        }
        let status = status::name_of(code);
        (response, Outcome { status, reason })
    }

    /// Completes the response to a call, and counts and logs the call.
    fn leave(
        &self,
        response: &mut Response<Body>,
        rule: Option<&'static Rule>,
        call: Option<&Call>,
        arrived: &Arrived,
    ) -> (Code, Option<&'static str>) {
        let request_id = &arrived.request_id;
        let code = complete(response, rule, request_id);
        if arrived.named || code != Code::Ok {
            request_id::set(response.headers_mut(), request_id);
        }
        let took = self.app.clock().monotonic().saturating_sub(arrived.at);
        let reason = status::reason_in(response.headers());
        self.note(rule, (code, reason), call, (request_id, took));
        self.app.metrics().note_error(reason);
        (code, reason)
    }

    fn note(
        &self,
        rule: Option<&'static Rule>,
        (code, reason): (Code, Option<&'static str>),
        call: Option<&Call>,
        (request_id, took): (&str, Duration),
    ) {
        let rpc_method = rule.map_or("_OTHER", Rule::rpc_method);
        let rpc_status_code = status::name_of(code);
        let labels = CallLabels {
            rpc_method,
            rpc_status_code,
        };
        self.app.metrics().observe_call(&labels, took);
        if rule.is_some_and(|rule| rule.admits == AllowedCallers::Everybody) {
            return;
        }
        let actor = call.map(|call| &call.caller.actor);
        let kind = actor.map_or("", |actor| actor.kind.name());
        let subject = actor.map_or("", |actor| actor.subject.as_str());
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // There can be thousands of verdicts per second, so they are logged at debug level only.
        // Each change is logged at info level. The line of a refused change has a field `reason`,
        // according to which such lines are sampled per minute.
        let changes = rule.is_some_and(|rule| rule.changes);
        if changes && code != Code::Ok {
            let reason = reason.unwrap_or_default();
            tracing::info!(
                reason,
                rpc_method,
                rpc_status_code,
                request_id,
                kind,
                subject,
                "change refused"
            );
        }
        if changes && code == Code::Ok {
            tracing::info!(
                rpc_method,
                rpc_status_code,
                request_id,
                kind,
                subject,
                took_us,
                "call"
            );
        } else {
            tracing::debug!(
                rpc_method,
                rpc_status_code,
                request_id,
                kind,
                subject,
                took_us,
                "call"
            );
        }
    }
}

pub(super) fn rule_of(request: &Request<Body>) -> Option<&'static Rule> {
    // A rule matches only the path, but the handler would accept a query too, so a path with a
    // query gets no rule and is refused.
    let plain = request.uri().query().is_none();
    policy::rule(request.uri().path()).filter(|_| plain)
}

/// Returns the status code of a response. Replaces an error that tonic has generated with an error
/// of our own.
pub(super) fn complete(
    response: &mut Response<Body>,
    rule: Option<&Rule>,
    request_id: &str,
) -> Code {
    let headers = response.headers();
    let Some(code) = headers
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()))
    else {
        // The status follows in the trailers. Handlers begin a response body only on success.
        return Code::Ok;
    };
    let told = code == Code::Ok || headers.contains_key("grpc-status-details-bin");
    // Health and reflection define their own errors. From them, `Unimplemented` means that they are
    // not served, so that error is replaced too.
    let theirs = rule.is_some_and(|rule| rule.admits == AllowedCallers::Everybody);
    if told || theirs && code != Code::Unimplemented {
        return code;
    }
    let message = headers
        .get("grpc-message")
        .and_then(|message| message.to_str().ok());
    let status = status::in_place_of(code, message.unwrap_or_default(), request_id);
    let code = status.code();
    *response = status.into_http();
    code
}
