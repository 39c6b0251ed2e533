//! Tower middleware around every RPC. For each request, it starts the trace, determines the request
//! id and the rule of the RPC, and runs the checks in `admission`. For each response, it adds error
//! details and the request id, updates the metrics and writes one log line.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response};
use tonic::{Code, body::Body};
use tower::Service;

use super::{
    cached_rpcs::CachedRpcs,
    call_start::Opened,
    connections::{Peer, backlog::Backlog, response_body::count_made},
    headers,
    message::discard,
    open_rpcs::OpenRpcs,
    permits::CallPermits,
    protocol, request_id,
    stream_limits::StreamPermit,
};
use crate::{
    app::App,
    auth::{
        Authenticator,
        policy::{self, Rule},
    },
    domain::{caller::Caller, entropy::SplitMix64, text},
    grpc::{
        code::name_of,
        status::{self, Failure},
    },
    metrics::CallLabels,
    telemetry::traces::{CallTrace, Outcome, Sampler},
};

/// State that the middleware of all RPCs shares.
pub(super) struct RpcMiddleware {
    pub app: Arc<App>,
    pub authenticator: Arc<Authenticator>,
    /// Generates request ids and random numbers for trace sampling. Neither has to be
    /// unpredictable.
    pub ids: SplitMix64,
    pub permits: CallPermits,
    pub open_rpcs: Arc<OpenRpcs>,
    pub max_header_bytes: u32,
    pub max_request_bytes: usize,
    pub sampler: Sampler,
    /// Answers verdicts from the cache.
    pub cached: CachedRpcs,
}

/// A call that has no response yet. If it is dropped, the client has cancelled the call or the
/// connection has ended, and the call is counted as cancelled.
pub(super) struct CallInFlight {
    middleware: Arc<RpcMiddleware>,
    rule: Option<&'static Rule>,
    arrived: Arrival,
    is_answered: bool,
}

impl CallInFlight {
    pub fn new(
        middleware: Arc<RpcMiddleware>,
        rule: Option<&'static Rule>,
        arrived: Arrival,
    ) -> Self {
        Self {
            middleware,
            rule,
            arrived,
            is_answered: false,
        }
    }

    /// Returns the request id of the call.
    pub fn request_id(&self) -> &str {
        &self.arrived.request_id
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        if !self.is_answered {
            self.middleware
                .note_cancelled(self.rule, None, &self.arrived);
        }
    }
}

/// The arrival time and the request id of a call.
pub(super) struct Arrival {
    at: Duration,
    pub request_id: String,
    /// Whether the client sent the request id.
    named: bool,
}

impl Arrival {
    /// Creates the description of a call. `named` is whether the client sent the request id.
    pub const fn new(at: Duration, request_id: String, named: bool) -> Self {
        Self {
            at,
            request_id,
            named,
        }
    }
}

impl RpcMiddleware {
    /// Returns the description of a call that arrived at `at`, or now.
    pub fn arrived(&self, headers: &HeaderMap, at: Option<Duration>) -> Arrival {
        let sent = request_id::sent(headers);
        let named = sent.is_some();
        Arrival {
            at: at.unwrap_or_else(|| self.app.clock().monotonic()),
            request_id: sent.unwrap_or_else(|| self.generate_id()),
            named,
        }
    }

    /// Returns the request id that the client sent, or generates one.
    pub fn request_id(&self, headers: &HeaderMap) -> String {
        request_id::sent(headers).unwrap_or_else(|| self.generate_id())
    }

    /// Counts and logs a call as cancelled by its client.
    pub fn note_cancelled(
        &self,
        rule: Option<&'static Rule>,
        caller: Option<&Caller>,
        arrived: &Arrival,
    ) {
        let call = (arrived.request_id.as_str(), self.since(arrived));
        self.note(rule, (Code::Cancelled, None), caller, call);
    }

    /// Generates a request id for a call that has none.
    pub fn generate_id(&self) -> String {
        request_id::generate(self.app.clock(), &self.ids)
    }

    /// Runs the checks that need no future: the size of the headers, unread responses, compression
    /// and stream limits. They come first, because a connection can open hundreds of calls at once,
    /// and the full future of a call is large.
    pub(super) fn open(
        &self,
        request: &Request<Body>,
        rule: Option<&'static Rule>,
    ) -> Result<Option<StreamPermit>, Failure> {
        if !headers::fit(request.headers(), self.max_header_bytes) {
            let max = self.max_header_bytes;
            return Err(Failure::HeadersTooLarge { max });
        }
        if Peer::is_behind(request.extensions()) {
            return Err(Failure::Overloaded);
        }
        if rule.is_some() {
            protocol::require_readable(request.headers())?;
        }
        match rule.filter(|rule| rule.admits_everybody()) {
            Some(rule) => self.open_rpcs.open(request, rule),
            None => Ok(None),
        }
    }

    /// Starts the trace of a call. Calls to health and reflection are not traced, because they
    /// would outnumber all others.
    pub(super) fn trace(&self, headers: &HeaderMap, rule: Option<&'static Rule>) -> CallTrace {
        if rule.is_some_and(Rule::admits_everybody) {
            return CallTrace::none();
        }
        self.trace_drawn(headers, rule, self.ids.draw())
    }

    /// Starts the trace of a call. The random number `drawn` decides whether the call is sampled.
    pub fn trace_drawn(
        &self,
        headers: &HeaderMap,
        rule: Option<&'static Rule>,
        drawn: u64,
    ) -> CallTrace {
        let fit = |state: &str| !text::holds_credential(state);
        self.sampler
            .begin(headers, fit, || drawn, rule.map(Rule::rpc_method))
    }

    pub(super) async fn pass<S>(
        &self,
        mut request: Request<Body>,
        (opened, mut in_flight): (Opened, CallInFlight),
        inner: S,
    ) -> (Response<Body>, Outcome)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let rule = opened.rule;
        let backlog = Peer::backlog_of(request.extensions());
        // This is checked again, because many calls can arrive before the first of them is
        // answered.
        let unread = backlog.as_ref().map(Backlog::begin_response);
        let (mut response, call) = if matches!(unread, Some(None)) {
            let refused = status::of(Failure::Overloaded, in_flight.request_id());
            (refused.into_http(), None)
        } else {
            self.answer(&mut request, opened, in_flight.request_id(), inner)
                .await
        };
        in_flight.is_answered = true;
        let caller = call.as_ref().map(|call| call.caller.as_ref());
        let (code, reason) = self.leave(&mut response, rule, caller, &in_flight.arrived);
        if code != Code::Ok {
            // Boxed, because this case is rare.
            Box::pin(discard(request.body_mut(), self.max_request_bytes)).await;
        }
        if let (Some(backlog), Some(Some(unread))) = (&backlog, unread) {
            response = count_made(response, unread, backlog);
        }
        let status = name_of(code);
        (response, Outcome { status, reason })
    }

    /// Returns the time since a call arrived.
    fn since(&self, arrived: &Arrival) -> Duration {
        self.app.clock().monotonic().saturating_sub(arrived.at)
    }

    /// Completes the response to a call, and counts and logs the call.
    pub fn leave(
        &self,
        response: &mut Response<Body>,
        rule: Option<&'static Rule>,
        caller: Option<&Caller>,
        arrived: &Arrival,
    ) -> (Code, Option<&'static str>) {
        let request_id = &arrived.request_id;
        let code = complete(response, rule, request_id);
        if arrived.named || code != Code::Ok {
            request_id::set(response.headers_mut(), request_id);
        }
        let took = self.since(arrived);
        let reason = status::reason_in(response.headers());
        self.note(rule, (code, reason), caller, (request_id, took));
        self.app.metrics().note_error(reason);
        (code, reason)
    }

    fn note(
        &self,
        rule: Option<&'static Rule>,
        (code, reason): (Code, Option<&'static str>),
        caller: Option<&Caller>,
        (request_id, took): (&str, Duration),
    ) {
        let rpc_method = rule.map_or("_OTHER", Rule::rpc_method);
        let rpc_response_status_code = name_of(code);
        let labels = CallLabels {
            rpc_method,
            rpc_response_status_code,
            error_type: (code != Code::Ok).then(|| reason.unwrap_or(rpc_response_status_code)),
        };
        self.app.metrics().observe_call(&labels, took);
        if rule.is_some_and(Rule::admits_everybody) {
            return;
        }
        let actor = caller.map(|caller| &caller.actor);
        let kind = actor.map_or("", |actor| actor.kind.name());
        let subject = actor.map_or("", |actor| actor.subject.as_str());
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // There can be thousands of verdicts per second, so they are logged only at debug level.
        // Each successful change is logged at info level, except the calls of strangers, who can
        // send any text: the line `changed` says what such a call changed. The line of a refused change has a field
        // `reason`, by which such lines are sampled per minute.
        let changes = rule.is_some_and(|rule| rule.changes);
        // A change whose client is gone was not refused, and may still be committed.
        if changes && !matches!(code, Code::Ok | Code::Cancelled) {
            let reason = reason.unwrap_or_default();
            tracing::info!(
                reason,
                rpc_method,
                rpc_response_status_code,
                request_id,
                kind,
                subject,
                "change refused"
            );
        }
        let is_stranger = caller.is_some_and(|caller| caller.stranger_in.is_some());
        if changes && code == Code::Ok && !is_stranger {
            tracing::info!(
                rpc_method,
                rpc_response_status_code,
                request_id,
                kind,
                subject,
                took_us,
                "call"
            );
        } else {
            tracing::debug!(
                rpc_method,
                rpc_response_status_code,
                request_id,
                kind,
                subject,
                took_us,
                "call"
            );
        }
    }
}

/// Returns whether each verdict is logged.
pub(super) fn logs_verdicts() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

pub(super) fn rule_of(request: &Request<Body>) -> Option<&'static Rule> {
    // A rule matches only the path, but the handler would also accept a query. So a request with a
    // query gets no rule and is refused.
    let plain = request.uri().query().is_none();
    policy::rule(request.uri().path()).filter(|_| plain)
}

/// Returns the status code of a response. Replaces an error that tonic generated with one of our
/// own errors.
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
    let has_details = code == Code::Ok || headers.contains_key("grpc-status-details-bin");
    // Health and reflection define their own errors. If their error is `Unimplemented`, the RPC is
    // not served, so that error is replaced too.
    let theirs = rule.is_some_and(Rule::admits_everybody);
    if has_details || theirs && code != Code::Unimplemented {
        return code;
    }
    let status = status::in_place_of_headers(headers, request_id);
    let code = status.code();
    *response = status.into_http();
    code
}
