//! What every call passes: on its way in, trace, request id and the RPC's rule, then what
//! `admission` asks; on its way out, an error with our details, the request id, the metrics, one
//! log line.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tonic::{Code, body::Body};
use tower::{Layer, Service};

use super::{anybody::Anybody, headers, message::discard, places::Places, request_id};
use crate::{
    app::App,
    auth::{
        Authenticator,
        policy::{self, Admits, Rule},
    },
    domain::{caller::Call, entropy::Spread, text},
    grpc::status,
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
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Before the trace is taken from them, too.
        headers::prune(request.headers_mut());
        // The clone that was polled ready takes the request; the fresh one waits its turn.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let gate = self.gate.clone();
        Box::pin(async move {
            let rule = rule_of(&request);
            let mut trace = gate.trace(request.headers(), rule);
            let passed = trace.within(gate.pass(request, rule, inner)).await;
            trace.end(passed.1);
            Ok(passed.0)
        })
    }
}

impl Gate {
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
        rule: Option<&'static Rule>,
        inner: S,
    ) -> (Response<Body>, Outcome)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let started = self.app.clock().monotonic();
        let sent = request_id::sent(request.headers());
        let generate = || request_id::generate(self.app.clock(), &self.ids);
        let request_id = sent.clone().unwrap_or_else(generate);
        let (mut response, call) = self.answer(&mut request, rule, &request_id, inner).await;
        let code = complete(&mut response, rule, &request_id);
        if sent.is_some() || code != Code::Ok {
            request_id::set(response.headers_mut(), &request_id);
        }
        let took = self.app.clock().monotonic().saturating_sub(started);
        let reason = status::reason_in(response.headers());
        self.note(rule, (code, reason), call.as_ref(), (&request_id, took));
        self.app.metrics().note_error(reason);
        if code != Code::Ok {
            discard(request.body_mut(), self.max_request_bytes).await;
        }
        let status = status::name_of(code);
        (response, Outcome { status, reason })
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
