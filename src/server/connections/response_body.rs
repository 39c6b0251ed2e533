//! Response bodies that are being sent to the client. HTTP/2 buffers a response that the client
//! does not read. So unread responses are counted per connection and per address until their last
//! byte is written or the stream is closed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::body::Body;

use super::backlog::{Backlog, UnreadBytes, UnreadResponse};

/// Size in bytes below which only the response is counted and not its bytes, because the stream
/// itself costs more memory than such a small body.
const SMALL: usize = 4 * 1024;

/// Future of a response whose body is counted while it is unread.
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
            let unread = response.extensions_mut().remove();
            response.map(|body| ResponseBody {
                body,
                backlog: self.backlog.clone(),
                unread,
            })
        }))
    }
}

/// Counts a response as unread already where it is made. Another thread than that of the connection
/// can make many of them before the connection's thread sends the first.
pub(in crate::server) fn note_unread(response: &mut Response<Body>, backlog: &Arc<Backlog>) {
    let unread = Arc::new(backlog.count_unread());
    response.extensions_mut().insert(unread);
}

/// A response body that is counted while it is unread.
pub(super) struct ResponseBody {
    body: Body,
    backlog: Arc<Backlog>,
    /// Set by [`note_unread`] and after each data frame, and cleared when the next frame is polled,
    /// because hyper polls again only once the send window has space for the previous frame.
    unread: Option<Arc<UnreadResponse>>,
}

/// Returns the frame. Its bytes are counted as unread until their buffer is dropped, unless they
/// are few.
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
        self.unread = None;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.unread = Some(Arc::new(self.backlog.count_unread()));
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| counted(frame, &self.backlog))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
