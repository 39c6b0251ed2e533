//! What answers the calls of the gRPC port. Before there is a store, health is answered and any
//! other call is refused as `STORE_UNAVAILABLE`; then the service takes over, on the same
//! connections, so that no client sees one closed or a stream reset.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Request, Response};
use tokio::sync::SetOnce;
use tonic::{Code, body::Body, service::Routes};
use tonic_health::pb::health_server::HealthServer;
use tower::Service as _;

use super::{
    Board,
    anybody::Anybody,
    connections::{Answer, Answering},
    layers::{Gated, complete, rule_of},
    message::discard,
    request_id,
};
use crate::{
    domain::{clock::Clock, entropy::Spread},
    grpc::status::{self, Failure},
    metrics::Metrics,
};

/// The largest request to health or reflection, in bytes: names of services and symbols.
pub(super) const MAX_OPEN_REQUEST: usize = 4096;

/// The entrance to the service.
pub(super) struct Entrance {
    pub anybody: Arc<Anybody>,
    pub health: HealthServer<Board>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// For ids of requests.
    pub ids: Spread,
    pub max_request_bytes: usize,
    /// There once the store is.
    pub service: SetOnce<Gated<Routes>>,
    /// Whether the store is waited for, for as long as that takes. Otherwise the service is about
    /// to be there, and calls wait for it.
    pub is_waiting: AtomicBool,
}

impl Answer for Entrance {
    fn answer(self: &Arc<Self>, request: Request<Body>) -> Answering {
        match self.service.get() {
            Some(service) => service.clone().call(request),
            None if self.is_waiting.load(Ordering::Acquire) => {
                Box::pin(self.clone().answer_without(request))
            }
            None => {
                let entrance = self.clone();
                Box::pin(async move { entrance.service.wait().await.clone().call(request).await })
            }
        }
    }
}

impl Entrance {
    /// The answer of a replica that waits for its database.
    async fn answer_without(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let rule = rule_of(&request);
        let generate = || request_id::generate(self.clock.as_ref(), &self.ids);
        let request_id = request_id::sent(request.headers()).unwrap_or_else(generate);
        let of_health = rule.filter(|rule| rule.path.starts_with("/grpc.health.v1.Health/"));
        let answered = match of_health {
            Some(rule) => match self.anybody.open(&request, rule) {
                Ok(place) => {
                    let (request, health) = (&mut request, self.health.clone());
                    let answering = self.anybody.answer(request, place, &request_id, health);
                    answering.await
                }
                Err(failure) => Err(failure),
            },
            None => Err(Failure::Starting),
        };
        let refused = |failure| status::of(failure, &request_id).into_http();
        let mut response = answered.unwrap_or_else(refused);
        if complete(&mut response, rule, &request_id) != Code::Ok {
            let reason = status::reason_in(response.headers());
            self.metrics.note_error(reason);
            request_id::set(response.headers_mut(), &request_id);
            discard(request.body_mut(), self.max_request_bytes).await;
        }
        Ok(response)
    }
}
