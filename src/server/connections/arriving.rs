//! Request bodies as they arrive. While a call is polled, its body reports whether the call waits
//! for more of its message. So a call whose message is complete at once costs nothing extra.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::share::Share;

thread_local! {
    /// Report by the body of the call that this thread is polling; `None` while no call is polled.
    static SAID: Cell<Option<Said>> = const { Cell::new(None) };
}

/// What a request body reported while its call was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Said {
    /// The call does not wait for its message.
    Nothing,
    /// The call waits for more of its message.
    Awaited,
    /// The peer's incomplete messages exceed its share.
    TooMuch,
}

/// Polls a call and returns what its body reported meanwhile.
pub(in crate::server) fn said_while<T>(poll: impl FnOnce() -> T) -> (T, Said) {
    let outside = SAID.replace(Some(Said::Nothing));
    let polled = poll();
    let said = SAID.replace(outside);
    (polled, said.unwrap_or(Said::Nothing))
}

/// Request body that counts the bytes of its message as long as the message is incomplete.
pub(super) struct Arriving {
    inner: Incoming,
    share: Arc<Share>,
    held: usize,
}

impl Arriving {
    pub fn new(inner: Incoming, share: Arc<Share>) -> Self {
        let held = 0;
        Self { inner, share, held }
    }

    fn note(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let said = SAID.get();
        match polled {
            Poll::Pending if said == Some(Said::Nothing) => SAID.set(Some(Said::Awaited)),
            Poll::Ready(Some(Ok(frame))) if said.is_some() && !self.inner.is_end_stream() => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.held += bytes;
                if !self.share.hold(bytes) {
                    SAID.set(Some(Said::TooMuch));
                }
            }
            _ => {}
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.note(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.share.release(self.held);
    }
}
