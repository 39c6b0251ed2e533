//! Serves `grpc.health.v1.Health/List`, which returns the health of every service at once.
//! tonic-health does not implement this RPC, so it is handled in front of tonic-health's server,
//! which serves the other two RPCs of the health service.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::Request;
use tonic::{
    Response, Status,
    body::Body,
    codegen::Service,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_health::pb::{HealthCheckResponse, health_server::HealthServer};
use tonic_prost::ProstCodec;

use super::health::HealthBoard;

const LIST: &str = "/grpc.health.v1.Health/List";

/// Request of `List`, which has no fields.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct ListRequest {}

/// Response of `List`.
#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    /// The health of each service, by its name.
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: std::collections::BTreeMap<String, HealthCheckResponse>,
}

/// The health service: `List`, and the RPCs of tonic-health's server.
#[derive(Clone)]
pub(super) struct HealthService {
    inner: HealthServer<HealthBoard>,
    board: HealthBoard,
    max_request_bytes: usize,
}

impl HealthService {
    /// Creates the service. It refuses requests of more than `max_request_bytes` bytes.
    pub fn new(board: HealthBoard, max_request_bytes: usize) -> Self {
        let inner = HealthServer::new(board.clone());
        Self {
            inner: inner.max_decoding_message_size(max_request_bytes),
            board,
            max_request_bytes,
        }
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = <HealthServer<HealthBoard> as NamedService>::NAME;
}

type Answered<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<Request<Body>> for HealthService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answered<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != LIST {
            return self.inner.call(request);
        }
        let (list, at_most) = (List(self.board.clone()), self.max_request_bytes);
        Box::pin(async move {
            let codec = ProstCodec::<ListResponse, ListRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(at_most);
            Ok(grpc.unary(list, request).await)
        })
    }
}

/// The handler of `List`.
struct List(HealthBoard);

impl UnaryService<ListRequest> for List {
    type Response = ListResponse;
    type Future = Answered<Response<ListResponse>, Status>;

    fn call(&mut self, _: tonic::Request<ListRequest>) -> Self::Future {
        let statuses = self.0.all().collect();
        Box::pin(async move { Ok(Response::new(ListResponse { statuses })) })
    }
}
