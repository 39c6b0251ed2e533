//! Runs the handler of an RPC, either until the client cancels the call or always to completion.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use crate::{
    app,
    grpc::status::{self, Failure},
    telemetry::context,
};

/// Returns the handler's response, or an internal error if the handler panicked.
pub(super) async fn run<S>(
    request: &mut Request<Body>,
    mut inner: S,
    request_id: &str,
) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let request = std::mem::take(request);
    match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(_) => panicked(request_id),
    }
}

/// Returns the response to a call whose handler panicked.
pub(super) fn panicked(request_id: &str) -> Response<Body> {
    let error = app::Error::Internal("a handler panicked".into());
    status::of(error, request_id).into_http()
}

/// Runs the handler of a change in its own task. The task continues if the client cancels or the
/// deadline passes, because what the handler commits must also be applied in this process (R12).
/// `at_most` is longer than any deadline, and takes effect only if the store never answers. The
/// task holds the permit until it ends.
#[expect(
    clippy::disallowed_methods,
    reason = "ends by itself, and nothing is lost if the process ends before it"
)]
pub(super) async fn run_to_the_end<S, P>(
    request: &mut Request<Body>,
    mut inner: S,
    request_id: &str,
    (at_most, permit): (Duration, P),
) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
    P: Send + 'static,
{
    let request = std::mem::take(request);
    let work = async move {
        let _place = permit;
        inner.call(request).await
    };
    let work = tokio::time::timeout(at_most, work);
    match tokio::spawn(context::carried(work)).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => status::of(Failure::Deadline, request_id).into_http(),
        Err(_) => panicked(request_id),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tower::service_fn;

    use super::*;

    type Answered = Result<Response<Body>, Infallible>;

    /// A handler that panics after its first poll, with a message that must not leak.
    async fn panicking(_: Request<Body>) -> Answered {
        tokio::task::yield_now().await;
        assert!(std::hint::black_box(false), "stk1_ in a panic");
        Ok(Response::new(Body::empty()))
    }

    fn require_fault(response: &Response<Body>) {
        let code = (Code::Internal as i32).to_string();
        assert_eq!(response.headers()["grpc-status"], code);
        let reason = status::reason_in(response.headers());
        assert_eq!(reason, Some("INTERNAL"));
        assert!(!format!("{response:?}").contains("stk1_"));
    }

    #[tokio::test]
    async fn a_panic_is_a_fault_of_its_call_whether_or_not_it_runs_to_the_end() {
        let read = run(&mut Request::default(), service_fn(panicking), "the-id").await;
        require_fault(&read);
        let kept = (Duration::from_secs(10), ());
        let handler = service_fn(panicking);
        let change = run_to_the_end(&mut Request::default(), handler, "the-id", kept).await;
        require_fault(&change);
    }
}
