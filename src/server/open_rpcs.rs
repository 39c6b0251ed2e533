//! Answers the RPCs that need no credential: health and reflection. They must answer even when no
//! other RPC can.

use std::{convert::Infallible, pin::pin, time::Duration};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::{
    connections::{Peer, request_body::Expected},
    handler::run,
    message::run_limited,
    request_id,
    stream_limits::{self, StreamLimits, StreamPermit},
};
use crate::{auth::policy::Rule, grpc::status::Failure};

/// Limits on the RPCs that need no credential.
pub(super) struct OpenRpcs {
    pub stream_limits: StreamLimits,
    pub deadline: Duration,
}

impl OpenRpcs {
    /// Takes the stream permit that a call needs. Returns `None` if the call needs no permit.
    pub fn open(
        &self,
        request: &Request<Body>,
        rule: &Rule,
    ) -> Result<Option<StreamPermit>, Failure> {
        let peer = Peer::of(request.extensions());
        self.stream_limits.acquire_for_peer(peer, rule)
    }

    /// Returns the handler's response, or the failure because of which there is none. The deadline
    /// covers the wait for the message and the time until the response begins.
    pub async fn answer<S>(
        &self,
        request: &mut Request<Body>,
        (expected, permit): (Expected, Option<StreamPermit>),
        request_id: &str,
        inner: S,
    ) -> Result<Response<Body>, Failure>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        // The handler copies this request id into the status that ends a stream.
        request_id::set(request.headers_mut(), request_id);
        let backlog = Peer::backlog_of(request.extensions());
        let waiting = (backlog.as_ref(), expected);
        let running = pin!(run(request, inner, request_id));
        let answered = run_limited(waiting, || Ok(()), running);
        let answered = tokio::time::timeout(self.deadline, answered).await;
        let response = answered.unwrap_or(Err(Failure::Deadline))?;
        Ok(stream_limits::hold_until_end(response, permit))
    }
}
