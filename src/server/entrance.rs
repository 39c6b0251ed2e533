//! Entry point for calls on the gRPC port. Until the store is open, calls to health are answered
//! and all other calls are refused as `STORE_UNAVAILABLE`. Then the service takes over on the same
//! connections, so that no client sees a closed connection or a reset stream.

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
    HealthBoard,
    anybody::Anybody,
    connections::{Answer, Answering},
    message::discard,
    request_id,
    rpc_middleware::{RpcService, complete, rule_of},
};
use crate::{
    domain::{clock::Clock, entropy::SplitMix64},
    grpc::status::{self, Failure},
    metrics::Metrics,
};

/// Largest request to health or reflection, in bytes. Such a request contains only names of
/// services and symbols.
pub(super) const MAX_OPEN_REQUEST: usize = 4096;

/// Dispatches calls to the service, as soon as the store is open.
pub(super) struct Entrance {
    pub anybody: Arc<Anybody>,
    pub health: HealthServer<HealthBoard>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// Generates request ids.
    pub ids: SplitMix64,
    pub max_request_bytes: usize,
    /// The service, which is set once the store is open.
    pub service: SetOnce<RpcService<Routes>>,
    /// Whether the store may be unavailable indefinitely. If so, calls are refused meanwhile.
    /// Otherwise the service starts soon, and calls wait for it.
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
    /// Answers a call while this replica waits for its database.
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
                Ok(permit) => {
                    let (request, health) = (&mut request, self.health.clone());
                    let answering = self.anybody.answer(request, permit, &request_id, health);
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
