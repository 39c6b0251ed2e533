//! Running the handler of an RPC: for as long as somebody waits, or to its end.

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

/// What the handler answers, or that it panicked.
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

fn panicked(request_id: &str) -> Response<Body> {
    let error = app::Error::Internal("a handler panicked".into());
    status::of(error, request_id).into_http()
}

/// What the handler of a change answers. It goes on when its client gives up or its time is
/// over: what it has done in the store must be applied here too (R12). `at_most` is beyond any
/// deadline, and only keeps a store that never answers from holding it for ever.
#[expect(
    clippy::disallowed_methods,
    reason = "ends by itself, and nothing is lost if the process ends before it"
)]
pub(super) async fn run_to_the_end<S>(
    request: &mut Request<Body>,
    mut inner: S,
    request_id: &str,
    at_most: Duration,
) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
{
    let request = std::mem::take(request);
    let work = async move { inner.call(request).await };
    let work = tokio::time::timeout(at_most, work);
    match tokio::spawn(context::carried(work)).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => status::of(Failure::Deadline, request_id).into_http(),
        Err(_) => panicked(request_id),
    }
}
