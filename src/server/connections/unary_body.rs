//! The body of a response with one message and the status OK.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::response_body::at_least;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
static OK: HeaderValue = HeaderValue::from_static("0");

/// A body that sends a message, and then the status OK in the trailers.
pub(in crate::server) struct UnaryBody {
    message: Option<Bytes>,
    is_ended: bool,
}

/// Returns a successful response. `message` must include its prefix.
pub(in crate::server) fn response(message: Bytes) -> Response<tonic::body::Body> {
    let body = UnaryBody {
        message: Some(message),
        is_ended: false,
    };
    let mut response = Response::new(tonic::body::Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC.clone());
    response
}

impl Body for UnaryBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.is_ended = true;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS.clone(), OK.clone());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        at_least(self.message.as_ref().map_or(0, Bytes::len))
    }
}
