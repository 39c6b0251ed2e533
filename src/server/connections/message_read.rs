//! Reads the request message of a unary call. The call polls it directly, so no boxed future is
//! needed.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyStream, StreamBody};
use hyper::body::{Body as _, Bytes, Frame};
use tonic::body::Body;

use super::request_body::RequestBody;

/// A message that is being read, with its prefix.
pub(in crate::server) struct MessageRead {
    body: RequestBody,
    arrived: Pieces,
    at_most: usize,
}

/// The part of a message that has arrived. Most messages arrive in one piece, which is kept without
/// a copy. Further pieces are appended to a buffer, so that the cost of many small pieces is linear
/// in their total size.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    /// All pieces, if there is more than one.
    joined: Vec<u8>,
}

impl Pieces {
    fn len(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&piece);
    }

    /// Joins all pieces into one.
    fn join(&mut self) {
        if !self.joined.is_empty() {
            self.first = std::mem::take(&mut self.joined).into();
        }
    }
}

impl MessageRead {
    /// Starts to read. Stops early if the message has more than `at_most` bytes.
    pub fn new(body: RequestBody, at_most: usize) -> Self {
        Self {
            body,
            arrived: Pieces::default(),
            at_most,
        }
    }

    /// Continues to read. Completes at the end of the body, or when the message is too large.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_end_stream() && self.arrived.len() <= self.at_most {
            // The body itself reports an error, and this report ends the call.
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                break;
            };
            // A request has no trailers.
            if let Ok(data) = frame.into_data() {
                self.arrived.push(data);
            }
        }
        self.arrived.join();
        Poll::Ready(())
    }

    /// Returns the message. Call this only once [`Self::poll`] has completed.
    pub const fn bytes(&self) -> &Bytes {
        &self.arrived.first
    }

    /// Restores the body, as if none of it had been read.
    pub fn into_body(mut self) -> Body {
        self.arrived.join();
        let bytes = self.arrived.first;
        let read = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
        let read = stream::iter(read);
        Body::new(StreamBody::new(read.chain(BodyStream::new(self.body))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![1; 100]);
        let mut pieces = Pieces::default();
        pieces.push(piece.clone());
        pieces.join();
        assert_eq!(pieces.first.as_ptr(), piece.as_ptr());
    }

    #[test]
    fn many_small_pieces_are_seldom_copied() {
        const COUNT: usize = 4096;
        let (mut pieces, mut moves, mut wanted) = (Pieces::default(), 0, Vec::new());
        for index in 0..COUNT {
            let piece = vec![u8::try_from(index % 251).unwrap(); 256];
            let before = pieces.joined.capacity();
            pieces.push(piece.clone().into());
            moves += usize::from(pieces.joined.capacity() != before);
            wanted.extend(piece);
        }
        assert_eq!(pieces.len(), wanted.len());
        pieces.join();
        assert_eq!(pieces.first, wanted);
        assert!(moves < 20, "copied {moves} times");
    }
}
