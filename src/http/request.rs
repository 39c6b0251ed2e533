//! Defines the request that the route handlers receive.

use std::{convert::Infallible, sync::Arc};

use axum::extract::FromRequest;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio_util::bytes::Bytes;

use super::{forward, rpc, rpc::Rpcs};
use crate::grpc::status::ReceivedError;

/// The origin of a request, which is attached to the request before it is routed.
#[derive(Clone)]
pub(super) struct Origin {
    pub rpcs: Arc<dyn Rpcs>,
    pub request_id: String,
}

/// A request with its body in memory.
pub(super) struct HttpRequest {
    pub headers: HeaderMap,
    /// The query; `None` if the URL has none.
    pub query: Option<String>,
    pub body: Bytes,
    origin: Option<Origin>,
}

impl<S: Sync> FromRequest<S> for HttpRequest {
    type Rejection = Infallible;

    async fn from_request(
        request: Request<axum::body::Body>,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        let (mut head, body) = request.into_parts();
        // Cannot fail, because the body is already in memory.
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        Ok(Self {
            origin: head.extensions.remove(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body: body.unwrap_or_default(),
        })
    }
}

impl HttpRequest {
    /// Returns whether the caller sent a credential in the header `authorization`, or presented a
    /// client certificate on the connection.
    pub fn has_credential(&self) -> bool {
        let origin = self.origin.as_ref();
        self.headers.contains_key(header::AUTHORIZATION)
            || origin.is_some_and(|origin| origin.rpcs.has_certificate())
    }

    /// Calls an RPC with the credential of this request.
    pub async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<A, ReceivedError> {
        let origin = self.origin()?;
        let headers = forward::headers(&self.headers, &origin.request_id)?;
        rpc::unary(origin.rpcs.as_ref(), path, headers, message).await
    }

    /// Calls an RPC with a credential that is not in the headers of this request.
    pub async fn call_as<A: Message + Default>(
        &self,
        credential: HeaderValue,
        path: &'static str,
        message: &impl Message,
    ) -> Result<A, ReceivedError> {
        let origin = self.origin()?;
        let headers = forward::headers_as(credential, &self.headers, &origin.request_id);
        rpc::unary(origin.rpcs.as_ref(), path, headers, message).await
    }

    fn origin(&self) -> Result<&Origin, ReceivedError> {
        let origin = self.origin.as_ref();
        origin.ok_or_else(|| ReceivedError::internal("a route was reached without its port"))
    }
}
