//! The RPCs that need no credential: health and reflection. They must answer when nothing else
//! does.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::{
    connections::Peer,
    handler::run,
    message::attended,
    openings::{self, Openings, Place},
    request_id,
};
use crate::{auth::policy::Rule, grpc::status::Failure};

/// What limits them.
pub(super) struct Anybody {
    pub openings: Openings,
    pub deadline: Duration,
}

impl Anybody {
    /// Takes the place that a call needs, if any.
    pub fn open(&self, request: &Request<Body>, rule: &Rule) -> Result<Option<Place>, Failure> {
        let peer = request.extensions().get::<Peer>();
        self.openings.enter_from(peer, rule)
    }

    /// The handler's response, or why it was not reached. The deadline is for the message and for
    /// the answer to begin.
    pub async fn answer<S>(
        &self,
        request: &mut Request<Body>,
        place: Option<Place>,
        request_id: &str,
        inner: S,
    ) -> Result<Response<Body>, Failure>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        // For the end of a stream, which the handler tells by itself.
        request_id::set(request.headers_mut(), request_id);
        let share = Peer::share_of(request.extensions());
        let answered = attended(share.as_ref(), || Ok(()), run(request, inner, request_id));
        let answered = tokio::time::timeout(self.deadline, answered).await;
        let response = answered.unwrap_or(Err(Failure::Deadline))?;
        Ok(openings::kept(response, place))
    }
}
