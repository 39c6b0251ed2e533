//! Calls this server's own RPCs in memory.

use std::convert::Infallible;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio_util::bytes::Bytes;

use super::REQUEST_ID;
use crate::grpc::{
    framing::{PREFIX, framed},
    status::{self, ReceivedError},
};

/// Future that resolves to the response of an RPC.
pub type RpcFuture = BoxFuture<'static, Result<Response<tonic::body::Body>, Infallible>>;

/// Calls RPCs for one HTTP request. The calls pass the same layers as calls of gRPC clients.
pub trait Rpcs: Send + Sync {
    /// Calls the RPC at `path`. `message` includes the gRPC length prefix.
    fn call(&self, path: &'static str, headers: HeaderMap, message: Bytes) -> RpcFuture;

    /// Returns whether the client of the request has presented a certificate.
    fn has_certificate(&self) -> bool;
}

/// Calls a unary RPC.
///
/// # Errors
/// Returns the error of the RPC.
pub(super) async fn unary<A: Message + Default>(
    rpcs: &dyn Rpcs,
    path: &'static str,
    headers: HeaderMap,
    message: &impl Message,
) -> Result<A, ReceivedError> {
    let request_id = headers.get(REQUEST_ID).cloned();
    let unreadable = || unreadable(request_id.as_ref());
    // No size limit is needed, because the HTTP request body, from which the message was built, is
    // limited.
    let message = framed(message, usize::MAX).ok_or_else(unreadable)?;
    let Ok(response) = rpcs.call(path, headers, message).await;
    let (head, body) = response.into_parts();
    if let Some(error) = status::received(&head.headers) {
        return Err(error);
    }
    let body = body.collect().await.map_err(|_| unreadable())?;
    if let Some(error) = body.trailers().and_then(status::received) {
        return Err(error);
    }
    let bytes = body.to_bytes();
    let message = bytes.get(PREFIX..).ok_or_else(unreadable)?;
    A::decode(message).map_err(|_| unreadable())
}

/// Returns an internal error, and logs the request id, which the client can use to report the
/// error.
fn unreadable(request_id: Option<&HeaderValue>) -> ReceivedError {
    tracing::error!(?request_id, "the answer of an own RPC cannot be read");
    ReceivedError::internal("the answer of the server's own RPC cannot be read")
}
