//! Answers verdicts from the cache on the thread of the connection. Such a call passes the same
//! layers as any other call, but in one function that never waits. If a layer refuses the call, or
//! the cache cannot answer it, the call starts over on the ordinary path.

use std::{
    cell::OnceCell,
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response, request::Parts};
use tokio::time::Sleep;
use tonic::body::Body;

use super::{
    cached_rpcs::Served,
    call_start::Start,
    connections::{
        Peer,
        message_read::MessageRead,
        request_body::{BodyReport, Expected, RequestBody, report_while},
        unary_body,
    },
    deadline,
    handler::panicked,
    head::Head,
    message::{failure_of, run_limited},
    request_id,
    rpc_layer::RpcService,
    rpc_middleware::{self, Arrival, RpcMiddleware},
};
use crate::{
    auth::policy::{AllowedCallers, Rule},
    domain::{caller::Caller, clock::ClockReading},
    grpc::{
        code::name_of,
        from_cache::{CachedCall, CachedRpc},
        status::{self, Failure},
    },
    metrics::CallLabels,
    telemetry::traces::{CallTrace, Outcome},
};

/// A call that has passed the layers that come before its message.
pub(super) struct DirectCall {
    rpc: CachedRpc,
    rule: &'static Rule,
    caller: Arc<Caller>,
    arrived: ClockReading,
    /// Whether the client sent a request id.
    is_named: bool,
    /// Boxed, because few calls are traced.
    trace: Option<Box<CallTrace>>,
    middleware: Arc<RpcMiddleware>,
    /// Whether the call has not been counted yet.
    is_open: bool,
}

impl DirectCall {
    /// Marks the call as counted here, or to be counted on the ordinary path.
    const fn close(&mut self) {
        self.is_open = false;
    }
}

impl Drop for DirectCall {
    /// Counts the call as cancelled if it is dropped before it is answered. If a client cancels a
    /// call at once, the call is dropped before its future runs.
    fn drop(&mut self) {
        if self.is_open {
            let middleware = &self.middleware;
            let arrived = Arrival::new(
                self.arrived.monotonic,
                middleware.generate_id(),
                self.is_named,
            );
            middleware.note_cancelled(Some(self.rule), Some(&self.caller), &arrived);
        }
    }
}

impl RpcService {
    /// Passes a call through the layers that come before its message. Returns `None` if the call
    /// needs the ordinary path.
    pub fn admit_directly(
        &self,
        request: &Request<RequestBody>,
        peer: &Peer,
    ) -> Option<DirectCall> {
        let middleware = &self.middleware;
        if request.method() != http::Method::POST || request.uri().query().is_some() {
            return None;
        }
        let rpc = CachedRpc::of(request.uri().path())?;
        let rule = middleware.cached.served(rpc)?.rule;
        let head = Head::of(request.headers())?;
        if head.bytes > middleware.max_header_bytes as usize
            || peer.backlog.is_behind()
            || middleware.permits.is_closed()
        {
            return None;
        }
        let clock = middleware.app.clock();
        let arrived = clock.read();
        if clock.fault().is_some() {
            return None;
        }
        let caller = middleware.authenticator.recognize(
            head.authorization.map(http::HeaderValue::as_bytes),
            peer.certified.as_ref(),
            &peer.credentials,
            arrived,
        )?;
        let AllowedCallers::Callers(requirement) = rule.admits else {
            return None;
        };
        requirement.admit(&caller).ok()?;
        Some(DirectCall {
            rpc,
            rule,
            caller,
            arrived,
            is_named: head.is_named,
            trace: self.trace_directly(request, rule, head.is_traced),
            middleware: middleware.clone(),
            is_open: true,
        })
    }

    fn trace_directly(
        &self,
        request: &Request<RequestBody>,
        rule: &'static Rule,
        is_traced: bool,
    ) -> Option<Box<CallTrace>> {
        let middleware = &self.middleware;
        let drawn = middleware.ids.draw();
        if !is_traced && !middleware.sampler.takes(drawn) {
            return None;
        }
        let trace = middleware.trace_drawn(request.headers(), Some(rule), drawn);
        trace.is_recorded().then(|| Box::new(trace))
    }

    /// Answers a call from the cache if its message has arrived. This future is boxed for each
    /// call, so it must stay small.
    pub async fn answer_directly(
        self,
        mut call: DirectCall,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let at_most = self.middleware.cached.verdicts.max_request_bytes(call.rpc);
        let mut message = MessageRead::new(body, at_most);
        let (read, report) =
            poll_fn(|cx| Poll::Ready(report_while(Expected::OneMessage, || message.poll(cx))))
                .await;
        let began = call.arrived.monotonic;
        if read.is_ready()
            && let Some(response) = self.answer_now(&mut call, &head, (&message, &peer), began)
        {
            return Ok(response);
        }
        // Boxed, because this case is rare and its future is large.
        Box::pin(self.answer_otherwise(call, head, message, peer, (read, report))).await
    }

    /// Waits for the rest of a message. Then answers from the cache or takes the ordinary path.
    async fn answer_otherwise(
        self,
        mut call: DirectCall,
        head: Parts,
        mut message: MessageRead,
        peer: Arc<Peer>,
        (read, report): (Poll<()>, BodyReport),
    ) -> Result<Response<Body>, Infallible> {
        let mut start = Start::default();
        let mut failure = failure_of(report);
        if read.is_pending() && failure.is_none() {
            let timeout = deadline::of(&head.headers, self.middleware.open_rpcs.deadline);
            let mut timer = Box::pin(tokio::time::sleep(timeout));
            failure = self.wait(&mut message, (&peer, timer.as_mut())).await.err();
            start.timer = Some(timer);
            let began = self.middleware.app.clock().monotonic();
            if failure.is_none()
                && let Some(response) = self.answer_now(&mut call, &head, (&message, &peer), began)
            {
                return Ok(response);
            }
        }
        call.close();
        start.arrived_at = Some(call.arrived.monotonic);
        // A trace is set even if the call is not traced, so that the call is not sampled a second
        // time.
        let trace = call.trace.take();
        start.trace = Some(trace.map_or_else(CallTrace::none, |trace| *trace));
        let mut request = Request::from_parts(head, message.into_body());
        request.extensions_mut().insert(peer);
        match failure {
            Some(failure) => self.refuse(request, start, failure).await,
            None => self.answer_ordinarily(request, start).await,
        }
    }

    /// Waits for the rest of a message. Meanwhile, the call counts against its peer's backlog.
    async fn wait(
        &self,
        message: &mut MessageRead,
        (peer, timer): (&Peer, Pin<&mut Sleep>),
    ) -> Result<(), Failure> {
        let reading = pin!(poll_fn(|cx| message.poll(cx)));
        let waiting = (Some(&peer.backlog), Expected::OneMessage);
        tokio::select! {
            biased;
            read = run_limited(waiting, || Ok(()), reading) => read,
            () = timer => Err(Failure::Deadline),
        }
    }

    /// Answers a call whose message has arrived, if the cache has the answer. `began` must not be
    /// later than the start of this function.
    fn answer_now(
        &self,
        call: &mut DirectCall,
        head: &Parts,
        (message, peer): (&MessageRead, &Peer),
        began: Duration,
    ) -> Option<Response<Body>> {
        // This is checked again, because many calls can arrive before the first of them is
        // answered.
        if peer.backlog.is_behind() {
            return None;
        }
        let middleware = &self.middleware;
        let id = OnceCell::new();
        let request_id = || {
            let id = id.get_or_init(|| middleware.request_id(&head.headers));
            id.clone()
        };
        let cached = CachedCall {
            rpc: call.rpc,
            actor: &call.caller.actor,
            began,
            request_id: &request_id,
        };
        let work = || middleware.cached.verdicts.answer(&cached, message.bytes());
        let work = AssertUnwindSafe(|| match &call.trace {
            Some(trace) => trace.scope(work),
            None => work(),
        });
        let answered = catch_unwind(work);
        let response = match answered {
            Ok(Some((Ok(message), at))) => {
                let response = unary_body::response(message);
                return Some(self.succeed(call, head, (response, at, request_id)));
            }
            Ok(Some((Err(failure), _))) => status::of(failure, &request_id()).into_http(),
            Ok(None) => return None,
            Err(_) => panicked(&request_id()),
        };
        Some(self.leave_directly(call, (response, request_id())))
    }

    /// Completes a successful response, and counts the call.
    fn succeed(
        &self,
        call: &mut DirectCall,
        head: &Parts,
        (mut response, at, request_id): (Response<Body>, Duration, impl Fn() -> String),
    ) -> Response<Body> {
        call.close();
        if rpc_middleware::logs_verdicts() || call.trace.is_some() {
            return self.leave_directly(call, (response, request_id()));
        }
        if let Some(Served { succeeded, .. }) = self.middleware.cached.served(call.rpc) {
            let labels = CallLabels {
                rpc_method: call.rule.rpc_method(),
                rpc_response_status_code: name_of(tonic::Code::Ok),
                error_type: None,
            };
            let calls = &self.middleware.app.metrics().calls;
            let took = at.saturating_sub(call.arrived.monotonic);
            succeeded
                .get_or_init(|| calls.get_or_create_owned(&labels))
                .observe(took.as_secs_f64());
        }
        if call.is_named
            && let Some(id) = request_id::sent(&head.headers)
        {
            request_id::set(response.headers_mut(), &id);
        }
        response
    }

    /// Completes a response, counts and logs the call, and ends its trace.
    fn leave_directly(
        &self,
        call: &mut DirectCall,
        (mut response, request_id): (Response<Body>, String),
    ) -> Response<Body> {
        call.close();
        let middleware = &self.middleware;
        let arrived = Arrival::new(call.arrived.monotonic, request_id, call.is_named);
        let rule = Some(call.rule);
        let mut leave = || middleware.leave(&mut response, rule, Some(&call.caller), &arrived);
        // Inside the scope of the trace, so that the log line contains the trace id.
        let (code, reason) = match &call.trace {
            Some(trace) => trace.scope(leave),
            None => leave(),
        };
        if let Some(trace) = &mut call.trace {
            let status = name_of(code);
            trace.end(Outcome { status, reason });
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_cached_verdict_is_small() {
        let size = size_of_future(RpcService::answer_directly);
        println!("{size} bytes");
        assert!(size < 1024, "{size} bytes");
    }
}
