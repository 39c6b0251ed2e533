//! Response bodies on their way to the client. HTTP/2 buffers a response that the client does not
//! read. So unread responses are counted per connection and per address until their last byte is
//! written or the stream is closed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::body::Body;

use super::share::{Share, Unread, UnreadBytes};

/// Size in bytes below which only the response is counted and not its bytes, because the stream
/// itself costs more memory than such a small body.
const SMALL: usize = 4 * 1024;

/// Future of a response whose body is counted while it is unread.
pub(super) struct Leaving<F> {
    answered: F,
    share: Arc<Share>,
}

impl<F> Leaving<F> {
    pub fn new(answered: F, share: Arc<Share>) -> Self {
        Self { answered, share }
    }
}

impl<F, E> Future for Leaving<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = Result<Response<Outgoing>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = ready!(Pin::new(&mut self.answered).poll(cx));
        let answer = |body| Outgoing {
            body,
            share: self.share.clone(),
            unread: None,
        };
        Poll::Ready(answered.map(|response| response.map(answer)))
    }
}

/// A response body that is counted while it is unread.
pub(super) struct Outgoing {
    body: Body,
    share: Arc<Share>,
    /// Set after each data frame, and cleared when the next frame is polled, because hyper polls
    /// again only once the send window has space for the previous frame.
    unread: Option<Unread>,
}

/// Returns the frame. Its bytes are counted as unread until their buffer is dropped, unless they
/// are few.
fn counted(frame: Frame<Bytes>, share: &Arc<Share>) -> Frame<Bytes> {
    frame.map_data(|bytes| {
        if bytes.len() < SMALL {
            return bytes;
        }
        let counted = share.leave_bytes(bytes.len());
        Bytes::from_owner(Kept {
            bytes,
            _counted: counted,
        })
    })
}

struct Kept {
    bytes: Bytes,
    _counted: UnreadBytes,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.unread = None;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.unread = Some(self.share.leave_unread());
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| counted(frame, &self.share))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
