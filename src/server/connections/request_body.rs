//! Request bodies that report what arrives. While a call is polled, its body reports whether the
//! call waits for more of its message. So a call whose message is complete at once has no extra
//! cost. The body also reports what tonic hides: a lost client, which tonic treats as the end of
//! the message, and a second message in a unary call, which tonic skips.

use std::{
    cell::Cell,
    error::Error as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::backlog::Backlog;

thread_local! {
    /// The call that this thread is polling, with the report of its body. `None` while no call is
    /// polled.
    static POLLED: Cell<Option<PolledCall>> = const { Cell::new(None) };
}

/// A call that is being polled, and what its body has reported so far.
#[derive(Clone, Copy)]
struct PolledCall {
    expected: Expected,
    report: BodyReport,
}

/// How many messages the client may send in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Expected {
    /// One, in a unary or server-streaming call.
    OneMessage,
    /// Any number, in a client-streaming or bidirectional call.
    AnyMessages,
}

/// What a request body reported while its call was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum BodyReport {
    /// The call does not wait for its message.
    Nothing,
    /// The call waits for more of its message.
    Awaited,
    /// The peer's incomplete messages exceed its limit.
    TooMuch,
    /// A second message has begun to arrive, although only one is allowed.
    SecondMessage,
    /// The client framed the body incorrectly, for example with a malformed HTTP/1.1 chunk.
    Malformed,
    /// No more data will arrive, because the client has cancelled the call or its connection is
    /// lost.
    Gone,
}

impl BodyReport {
    /// Returns whether the call must stop reading. The rest of the body is then hidden from the
    /// call, so that it neither uses a second message nor treats a lost client as the end of the
    /// message.
    const fn ends(self) -> bool {
        matches!(self, Self::SecondMessage | Self::Malformed | Self::Gone)
    }
}

/// Polls a call and returns what its body reported meanwhile.
pub(in crate::server) fn report_while<T>(
    expected: Expected,
    poll: impl FnOnce() -> T,
) -> (T, BodyReport) {
    let report = BodyReport::Nothing;
    let outside = POLLED.replace(Some(PolledCall { expected, report }));
    let polled = poll();
    let inside = POLLED.replace(outside);
    (
        polled,
        inside.map_or(BodyReport::Nothing, |polled| polled.report),
    )
}

/// A request body that counts the bytes of its message against the backlog while the message is
/// incomplete.
pub(in crate::server) struct RequestBody {
    inner: Source,
    backlog: Arc<Backlog>,
    held: usize,
    first: FirstMessage,
}

/// Where the bytes of a body come from.
enum Source {
    /// The connection.
    Client(Incoming),
    /// Memory, for a call that this process makes for a request on the HTTP port.
    Memory(Full<Bytes>),
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Memory(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Memory(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Memory(body) => body.size_hint(),
        }
    }
}

impl RequestBody {
    pub fn new(inner: Incoming, backlog: Arc<Backlog>) -> Self {
        Self::of(Source::Client(inner), backlog)
    }

    /// Creates the body of a call whose message is in memory.
    pub fn in_memory(message: Bytes, backlog: Arc<Backlog>) -> Self {
        Self::of(Source::Memory(Full::new(message)), backlog)
    }

    fn of(inner: Source, backlog: Arc<Backlog>) -> Self {
        Self {
            inner,
            backlog,
            held: 0,
            first: FirstMessage::default(),
        }
    }

    /// Counts a frame, and returns the new report. Returns `None` if there is nothing new to
    /// report.
    fn note(
        &mut self,
        polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>,
        call: PolledCall,
    ) -> Option<BodyReport> {
        match polled {
            Poll::Pending => (call.report == BodyReport::Nothing).then_some(BodyReport::Awaited),
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.data_ref()?;
                if call.expected == Expected::OneMessage && self.first.count(data) {
                    return Some(BodyReport::SecondMessage);
                }
                if self.inner.is_end_stream() {
                    return None;
                }
                self.held += data.len();
                (!self.backlog.hold(data.len())).then_some(BodyReport::TooMuch)
            }
            Poll::Ready(Some(Err(error))) if is_malformed(error) => Some(BodyReport::Malformed),
            Poll::Ready(Some(Err(_))) => Some(BodyReport::Gone),
            Poll::Ready(None) => None,
        }
    }
}

/// Returns whether hyper could not parse the framing of a body. In this case, the source of hyper's
/// error is an I/O error of one of these kinds. The errors of HTTP/2 have other sources.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|source: &io::Error| {
        matches!(
            source.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = self.inner.poll_frame(cx);
        let Some(call) = POLLED.get() else {
            return polled;
        };
        if let Some(report) = self.note(&polled, call) {
            POLLED.set(Some(PolledCall { report, ..call }));
            if report.ends() {
                // The call is refused after this poll, so nothing needs to wake it.
                return Poll::Pending;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.backlog.release(self.held);
    }
}

/// Size in bytes of the prefix of a gRPC message: the compressed flag and the length.
const PREFIX: usize = 5;

/// How much of the first message of a body has arrived.
#[derive(Default)]
struct FirstMessage {
    prefix: [u8; PREFIX],
    prefix_bytes: usize,
    /// Number of message bytes that have not arrived. Valid once the prefix is complete.
    missing: usize,
}

impl FirstMessage {
    /// Counts bytes that have arrived. Returns whether any of them belong to a second message.
    fn count(&mut self, bytes: &[u8]) -> bool {
        let (prefix, rest) = bytes.split_at(bytes.len().min(PREFIX - self.prefix_bytes));
        let end = self.prefix_bytes + prefix.len();
        self.prefix[self.prefix_bytes..end].copy_from_slice(prefix);
        if self.prefix_bytes < PREFIX && end == PREFIX {
            let [_, length @ ..] = self.prefix;
            self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        }
        self.prefix_bytes = end;
        let is_exceeded = rest.len() > self.missing;
        self.missing = self.missing.saturating_sub(rest.len());
        is_exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the index of the piece in which a second message is detected.
    fn exceeded_at(pieces: &[&[u8]]) -> Option<usize> {
        let mut first = FirstMessage::default();
        pieces.iter().position(|piece| first.count(piece))
    }

    #[test]
    fn a_second_message_is_found_however_the_bytes_are_cut() {
        let one: &[u8] = &[0, 0, 0, 0, 2, 7, 7];
        let two = [one, one].concat();
        let each: Vec<_> = two.chunks(1).collect();
        assert_eq!(exceeded_at(&[one]), None);
        assert_eq!(exceeded_at(&each[..7]), None);
        assert_eq!(exceeded_at(&[&two]), Some(0));
        assert_eq!(exceeded_at(&[one, &[], &[0]]), Some(2));
        assert_eq!(exceeded_at(&each), Some(7));
        assert_eq!(exceeded_at(&[&two[..3], &two[3..8]]), Some(1));
        // Messages without content have a prefix too.
        assert_eq!(exceeded_at(&[&[0; 5]]), None);
        assert_eq!(exceeded_at(&[&[0; 10]]), Some(0));
        assert_eq!(exceeded_at(&[&[0, 255, 255, 255, 255], &[0; 4096]]), None);
    }
}
