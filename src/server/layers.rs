//! What every call passes: on its way in, trace, request id and the RPC's rule, then what
//! `admission` asks; on its way out, an error with our details, the request id, the metrics, one
//! log line.

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
    openings::Place,
    places::Places,
    request_id,
};
use crate::{
    app::App,
    auth::{
        Authenticator,
        policy::{self, Admits, Rule},
    },
    domain::{caller::Call, entropy::Spread, text},
    grpc::status::{self, Failure},
    metrics::CallLabels,
    telemetry::traces::{CallTrace, Outcome, Sampler},
};

/// What stands in front of every RPC.
pub(super) struct Gate {
    pub app: Arc<App>,
    pub authenticator: Arc<Authenticator>,
    /// For ids of requests, and for which of them are traced: nobody needs be kept from
    /// guessing either.
    pub ids: Spread,
    pub places: Places,
    pub anybody: Arc<Anybody>,
    pub max_header_bytes: u32,
    pub max_request_bytes: usize,
    pub sampler: Sampler,
}

#[derive(Clone)]
pub(super) struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            gate: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Gated<S>
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
        // Before the trace is taken from them, too.
        headers::prune(request.headers_mut());
        let rule = rule_of(&request);
        let place = match self.gate.open(&request, rule) {
            Ok(place) => place,
            Err(failure) => return self.gate.refuse(request, rule, failure),
        };
        // The clone that was polled ready takes the request; the fresh one waits its turn.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let gate = self.gate.clone();
        Box::pin(async move {
            let mut trace = gate.trace(request.headers(), rule);
            let passed = gate.pass(request, (rule, place), inner);
            let (response, outcome) = trace.within(passed).await;
            trace.end(outcome);
            Ok(response)
        })
    }
}

/// A call as it has arrived.
struct Arrived {
    at: Duration,
    request_id: String,
    /// Whether the client sent the id.
    named: bool,
}

impl Gate {
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

    /// What is decided before a call has a future of its own. A connection can bring hundreds of
    /// calls at once, and a future holds all that a call may ever need.
    fn open(
        &self,
        request: &Request<Body>,
        rule: Option<&'static Rule>,
    ) -> Result<Option<Place>, Failure> {
        if !headers::fit(request.headers(), self.max_header_bytes) {
            let max = self.max_header_bytes;
            return Err(Failure::HeadersTooLarge { max });
        }
        if Peer::share_of(request.extensions()).is_some_and(|share| share.is_behind()) {
            return Err(Failure::Overloaded);
        }
        match rule.filter(|rule| rule.admits == Admits::Everybody) {
            Some(rule) => self.anybody.open(request, rule),
            None => Ok(None),
        }
    }

    /// The answer to a call that is refused so early: nothing is kept of it but what is still to
    /// come of its message.
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

    /// Health and reflection belong to no trace: they would drown the others.
    fn trace(&self, headers: &HeaderMap, rule: Option<&'static Rule>) -> CallTrace {
        if rule.is_some_and(|rule| rule.admits == Admits::Everybody) {
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
        (rule, place): (Option<&'static Rule>, Option<Place>),
        inner: S,
    ) -> (Response<Body>, Outcome)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let arrived = self.arrived(request.headers());
        let (mut response, call) = self
            .answer(&mut request, (rule, place), &arrived.request_id, inner)
            .await;
        let (code, reason) = self.leave(&mut response, rule, call.as_ref(), &arrived);
        if code != Code::Ok {
            discard(request.body_mut(), self.max_request_bytes).await;
        }
        let status = status::name_of(code);
        (response, Outcome { status, reason })
    }

    /// Completes a response, and counts and logs the call.
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
        if rule.is_some_and(|rule| rule.admits == Admits::Everybody) {
            return;
        }
        let actor = call.map(|call| &call.caller.actor);
        let kind = actor.map_or("", |actor| actor.kind.name());
        let subject = actor.map_or("", |actor| actor.subject.as_str());
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Verdicts by the thousand a second are for the metrics; changes are worth a line each,
        // and refused ones a line per reason and minute: `reason` has them sampled.
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
    // A query would reach the handler all the same: what the rule saw would not be all.
    let plain = request.uri().query().is_none();
    policy::rule(request.uri().path()).filter(|_| plain)
}

/// The code of a response; an error that the library made by itself is told in our words.
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
        // The code of a message comes behind it, and handlers send none unless all is well.
        return Code::Ok;
    };
    let told = code == Code::Ok || headers.contains_key("grpc-status-details-bin");
    // Health and reflection have contracts of their own, where they are served at all.
    let theirs = rule.is_some_and(|rule| rule.admits == Admits::Everybody);
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
