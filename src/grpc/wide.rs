//! Permits larger messages for `BatchIntrospect` than for the other RPCs of its service. tonic
//! supports only one limit per service, so there are two instances of the service, of which the
//! path selects one.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{body::Body, codegen::Service, server::NamedService};

use super::{
    MessageLimits, introspection::Introspections,
    pb::v1::introspection_service_server::IntrospectionServiceServer,
};

/// Maximum size of a `BatchIntrospect` request or response, in bytes.
pub(super) const LARGEST: usize = 1024 * 1024;

/// Path of `BatchIntrospect`.
pub(super) const BATCH: &str = "/stacktoken.v1.IntrospectionService/BatchIntrospect";

type Server = IntrospectionServiceServer<Introspections>;

/// The two instances of the service, one for each limit.
#[derive(Clone)]
pub(super) struct IntrospectionServer {
    narrow: Server,
    wide: Server,
}

impl IntrospectionServer {
    pub fn new(service: Introspections, limits: MessageLimits) -> Self {
        let service = Arc::new(service);
        let within = |decoding, encoding| {
            Server::from_arc(service.clone())
                .max_decoding_message_size(decoding)
                .max_encoding_message_size(encoding)
        };
        Self {
            narrow: within(limits.decoding, limits.encoding),
            wide: within(LARGEST, LARGEST),
        }
    }
}

impl NamedService for IntrospectionServer {
    const NAME: &'static str = <Server as NamedService>::NAME;
}

impl Service<http::Request<Body>> for IntrospectionServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = <Server as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() == BATCH {
            self.wide.call(request)
        } else {
            self.narrow.call(request)
        }
    }
}
