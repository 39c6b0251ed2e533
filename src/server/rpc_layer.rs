//! Takes a call through the layers, and chooses its runtime. A verdict that the cache can answer
//! stays on the thread of its connection. Every other call runs on the main runtime, like the
//! store.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::{Request, Response};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::{body::Body, service::Routes};

use super::{
    call_start::{Opened, Start},
    connections::{AnswerFuture, Peer, request_body::RequestBody},
    handler::panicked,
    headers,
    message::discard,
    rpc_middleware::{CallInFlight, RpcMiddleware, rule_of},
};
use crate::{
    grpc::{
        code::name_of,
        status::{self, Failure},
    },
    telemetry::traces::{CallTrace, Outcome},
};

/// The layers in front of every RPC, and the handlers behind them.
#[derive(Clone)]
pub(super) struct RpcService {
    pub middleware: Arc<RpcMiddleware>,
    pub handlers: Routes,
    /// The main runtime.
    pub main: Handle,
}

impl RpcService {
    /// Answers a call.
    pub fn call(&self, request: Request<RequestBody>, peer: &Arc<Peer>) -> AnswerFuture {
        // A panic here would end the connection. On the ordinary path, it ends only its own call.
        let admitted = catch_unwind(AssertUnwindSafe(|| self.admit_directly(&request, peer)));
        if let Ok(Some(call)) = admitted {
            return Box::pin(self.clone().answer_directly(call, request, peer.clone()));
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        self.answer_ordinarily(request, Start::default())
    }

    /// Answers a call on the main runtime.
    pub fn answer_ordinarily(&self, mut request: Request<Body>, start: Start) -> AnswerFuture {
        // This must come before the trace context is extracted from the headers.
        headers::prune(request.headers_mut());
        let rule = rule_of(&request);
        let permit = match self.middleware.open(&request, rule) {
            Ok(permit) => permit,
            Err(failure) => return self.refuse(request, start, failure),
        };
        let Start {
            arrived_at,
            trace,
            timer,
        } = start;
        let trace = trace.unwrap_or_else(|| self.middleware.trace(request.headers(), rule));
        let opened = Opened {
            rule,
            permit,
            timer,
        };
        let arrived = self.middleware.arrived(request.headers(), arrived_at);
        let request_id = arrived.request_id.clone();
        // This is created before the task, because if the call is cancelled, the task may be
        // aborted before it starts.
        let in_flight = CallInFlight::new(self.middleware.clone(), rule, arrived);
        let opened = (opened, in_flight);
        let answering: AnswerFuture = if trace.is_recorded() {
            Box::pin(self.clone().answer_traced(request, opened, trace))
        } else {
            Box::pin(self.clone().answer(request, opened))
        };
        // If the client cancels the call, its task is aborted.
        let answering = AbortOnDropHandle::new(self.main.spawn(answering));
        Box::pin(async move {
            let answered = answering.await;
            answered.unwrap_or_else(|_| Ok(panicked(&request_id)))
        })
    }

    /// Answers a call that a layer has refused. The future holds only the response and the rest of
    /// the request message, so it is small.
    pub fn refuse(&self, request: Request<Body>, start: Start, failure: Failure) -> AnswerFuture {
        let arrived = self.middleware.arrived(request.headers(), start.arrived_at);
        let mut response = status::of(failure, &arrived.request_id).into_http();
        let rule = rule_of(&request);
        let mut trace = start.trace.unwrap_or_else(CallTrace::none);
        let leave = || self.middleware.leave(&mut response, rule, None, &arrived);
        let (code, reason) = trace.scope(leave);
        let status = name_of(code);
        trace.end(Outcome { status, reason });
        let at_most = self.middleware.max_request_bytes;
        let mut message = request.into_body();
        Box::pin(async move {
            discard(&mut message, at_most).await;
            Ok(response)
        })
    }

    async fn answer(
        self,
        request: Request<Body>,
        opened: (Opened, CallInFlight),
    ) -> Result<Response<Body>, Infallible> {
        let passed = self.middleware.pass(request, opened, self.handlers);
        Ok(passed.await.0)
    }

    async fn answer_traced(
        self,
        request: Request<Body>,
        opened: (Opened, CallInFlight),
        mut trace: CallTrace,
    ) -> Result<Response<Body>, Infallible> {
        let passed = self.middleware.pass(request, opened, self.handlers);
        let (response, outcome) = trace.within(passed).await;
        trace.end(outcome);
        Ok(response)
    }
}
