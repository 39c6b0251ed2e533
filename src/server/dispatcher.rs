//! The entry point for calls on the gRPC port. Until the store is open, calls to health are
//! answered and all other calls are refused as `STORE_UNAVAILABLE`. Then the service takes over on
//! the same connections, so that no client sees a closed connection or a reset stream.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use tokio::sync::SetOnce;
use tonic::{Code, body::Body};

use super::{
    admission::expected,
    connections::{Answer, AnswerFuture, Peer, request_body::RequestBody},
    health_list::HealthService,
    message::discard,
    open_rpcs::OpenRpcs,
    protocol, request_id,
    rpc_layer::RpcService,
    rpc_middleware::{complete, rule_of},
};
use crate::{
    domain::{clock::Clock, entropy::SplitMix64},
    grpc::status::{self, Failure},
    metrics::Metrics,
};

/// Maximum size of a request to health or reflection, in bytes. Such a request contains only names
/// of services and symbols.
pub(super) const MAX_OPEN_REQUEST: usize = 4096;

/// Passes calls to the service as soon as the store is open.
pub(super) struct Dispatcher {
    pub open_rpcs: Arc<OpenRpcs>,
    pub health: HealthService,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    /// Generates request ids.
    pub ids: SplitMix64,
    pub max_request_bytes: usize,
    /// The service. It is set once the store is open.
    pub service: SetOnce<RpcService>,
    /// Whether calls are refused until the service is set, because the store may be unavailable for
    /// long. Otherwise the service starts soon, and calls wait for it.
    pub is_waiting: AtomicBool,
}

impl Answer for Dispatcher {
    fn answer(self: &Arc<Self>, request: Request<RequestBody>, peer: &Arc<Peer>) -> AnswerFuture {
        if let Err(not_grpc) = protocol::check(&request) {
            self.metrics
                .observe_call(&not_grpc.labels(), Duration::ZERO);
            let at_most = self.max_request_bytes;
            let mut body = Body::new(request.into_body());
            return Box::pin(async move {
                discard(&mut body, at_most).await;
                Ok(not_grpc.response())
            });
        }
        if let Some(service) = self.service.get() {
            return service.call(request, peer);
        }
        if self.is_waiting.load(Ordering::Acquire) {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            return Box::pin(self.clone().answer_without(request));
        }
        let (dispatcher, peer) = (self.clone(), peer.clone());
        Box::pin(async move { dispatcher.service.wait().await.call(request, &peer).await })
    }
}

impl Dispatcher {
    /// Handles a call while this replica waits for its database.
    async fn answer_without(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Infallible> {
        let rule = rule_of(&request);
        let generate = || request_id::generate(self.clock.as_ref(), &self.ids);
        let request_id = request_id::sent(request.headers()).unwrap_or_else(generate);
        let of_health = rule.filter(|rule| rule.path.starts_with("/grpc.health.v1.Health/"));
        let answered = async {
            let rule = of_health.ok_or(Failure::Starting)?;
            protocol::require_readable(request.headers())?;
            let permit = self.open_rpcs.open(&request, rule)?;
            let (request, health) = (&mut request, self.health.clone());
            let opened = (expected(rule), permit);
            let answering = self.open_rpcs.answer(request, opened, &request_id, health);
            answering.await
        }
        .await;
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
