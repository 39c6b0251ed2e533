//! Response bodies that count as unread. HTTP/2 buffers a response that the client does not read.
//! So unread responses are counted per connection and per address until their last byte is written
//! or the stream is closed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::FutureExt as _;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::body::Body;

use super::backlog::{Backlog, UnreadBytes, UnreadResponse};

/// Size in bytes below which a body's bytes are not counted, only its response. The stream itself
/// takes more memory than such a small body.
const SMALL: usize = 4 * 1024;

/// The future of a response whose body counts as unread until the client reads it.
pub(super) struct ResponseFuture<F> {
    response: F,
    backlog: Arc<Backlog>,
}

impl<F> ResponseFuture<F> {
    pub fn new(response: F, backlog: Arc<Backlog>) -> Self {
        Self { response, backlog }
    }
}

impl<F, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        Poll::Ready(response.map(|mut response| {
            let counts = response.extensions_mut().remove::<Arc<UnreadCounts>>();
            // Extensions are cloned only with their response, so this is the only reference.
            let counts = counts.and_then(Arc::into_inner);
            response.map(|body| ResponseBody::new(body, counts, self.backlog.clone()))
        }))
    }
}

/// Counts a response as unread. Its bytes are counted too, if their number is known in advance.
struct UnreadCounts {
    response: UnreadResponse,
    bytes: Option<UnreadBytes>,
}

/// Encodes the message of a response, and counts the response and its bytes as unread. This must
/// happen on the thread that created the response, because that thread can create many responses
/// before the connection's thread sends the first one.
pub(in crate::server) fn count_made(
    response: Response<Body>,
    unread: UnreadResponse,
    backlog: &Arc<Backlog>,
) -> Response<Body> {
    let mut response = response.map(encoded);
    let counts = UnreadCounts {
        response: unread,
        bytes: count_known(response.body(), backlog),
    };
    response.extensions_mut().insert(Arc::new(counts));
    response
}

/// A response body whose first frame is encoded.
struct Encoded {
    first: Option<Result<Frame<Bytes>, tonic::Status>>,
    rest: Body,
}

/// Encodes the first frame of a body if the frame is ready.
fn encoded(mut body: Body) -> Body {
    if hyper::body::Body::is_end_stream(&body) {
        return body;
    }
    match body.frame().now_or_never() {
        Some(Some(first)) => Body::new(Encoded {
            first: Some(first),
            rest: body,
        }),
        Some(None) => Body::empty(),
        None => body,
    }
}

impl hyper::body::Body for Encoded {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(|first| first.as_ref().ok());
        let bytes = first.and_then(Frame::data_ref).map_or(0, Bytes::len);
        at_least(bytes)
    }
}

/// Returns a size hint with this number of bytes as the lower bound. It has no upper bound, because
/// an exact size would make hyper send `content-length`.
pub(super) fn at_least(bytes: usize) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(u64::try_from(bytes).unwrap_or(u64::MAX));
    hint
}

/// Counts the known bytes of a body as unread, unless there are fewer than [`SMALL`].
fn count_known(body: &Body, backlog: &Arc<Backlog>) -> Option<UnreadBytes> {
    let known = hyper::body::Body::size_hint(body).lower();
    let known = usize::try_from(known).unwrap_or(usize::MAX);
    (known >= SMALL).then(|| backlog.count_unread_bytes(known))
}

/// A response body that counts as unread until the client reads it.
pub(super) struct ResponseBody {
    body: Body,
    backlog: Arc<Backlog>,
    /// Set at the beginning and after each data frame. Cleared when the body has nothing to send or
    /// the next frame is polled, because hyper polls again only once the send window has space for
    /// the previous frame.
    unread: Option<UnreadResponse>,
    /// The counted bytes of the first frame, until that frame is sent with its own count.
    unread_bytes: Option<UnreadBytes>,
}

impl ResponseBody {
    /// Counts the response, unless `counts` already counts it.
    fn new(body: Body, counts: Option<UnreadCounts>, backlog: Arc<Backlog>) -> Self {
        let UnreadCounts { response, bytes } = counts.unwrap_or_else(|| UnreadCounts {
            response: backlog.count_unread(),
            bytes: count_known(&body, &backlog),
        });
        Self {
            unread: Some(response),
            unread_bytes: bytes,
            body,
            backlog,
        }
    }
}

/// Counts the bytes of a frame as unread until their buffer is dropped. Leaves a frame with fewer
/// than [`SMALL`] bytes uncounted.
fn counted(frame: Frame<Bytes>, backlog: &Arc<Backlog>) -> Frame<Bytes> {
    frame.map_data(|bytes| {
        if bytes.len() < SMALL {
            return bytes;
        }
        let counted = backlog.count_unread_bytes(bytes.len());
        Bytes::from_owner(UnreadBuffer {
            bytes,
            _counted: counted,
        })
    })
}

struct UnreadBuffer {
    bytes: Bytes,
    _counted: UnreadBytes,
}

impl AsRef<[u8]> for UnreadBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            if self.unread.is_none() {
                self.unread = Some(self.backlog.count_unread());
            }
        } else {
            self.unread = None;
        }
        let polled = polled.map(|frame| {
            let backlog = &self.backlog;
            frame.map(|frame| frame.map(|frame| counted(frame, backlog)))
        });
        self.unread_bytes = None;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
