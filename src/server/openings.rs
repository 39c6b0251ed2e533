//! Streams last for as long as their clients like, so there is room for so many and no more:
//! of health and reflection, which whoever reaches the port may open, and of changes.

use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use crate::{
    auth::policy::{Admits, Rule},
    grpc::status::Failure,
};

/// How many streams of reflection there may be; each can hold an answer of some 200 KiB.
const MAX_REFLECTIONS: usize = 32;

/// The room for streams.
pub(super) struct Openings {
    changes: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    reflections: Arc<Semaphore>,
}

/// The room that one stream takes until it ends; none where the answer is a single message.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Openings {
    pub fn new(max_watches: usize) -> Self {
        Self {
            changes: Arc::new(Semaphore::new(max_watches)),
            watches: Arc::new(Semaphore::new(max_watches)),
            reflections: Arc::new(Semaphore::new(MAX_REFLECTIONS)),
        }
    }

    /// A place for a call by this rule.
    pub fn enter(&self, rule: &Rule) -> Result<Place, Failure> {
        let room = match rule.path {
            // What a probe asks must be answered however many others watch.
            "/grpc.health.v1.Health/Check" => return Ok(None),
            "/grpc.health.v1.Health/Watch" => &self.watches,
            "/stacktoken.v1.IntrospectionService/Watch" => &self.changes,
            _ if rule.admits == Admits::Everybody => &self.reflections,
            _ => return Ok(None),
        };
        let place = room.clone().try_acquire_owned();
        place.map(Some).map_err(|_| Failure::Overloaded)
    }
}

/// The response, which keeps its place for as long as there is something to read of it.
pub(super) fn kept(response: Response<Body>, place: Place) -> Response<Body> {
    let Some(place) = place else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _kept = &place;
            frame
        }))
    })
}
