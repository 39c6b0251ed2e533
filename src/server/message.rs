//! Waits for the request message of a call. Until the message has arrived, the call counts against
//! its peer's backlog and holds no call permit.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::bytes::Bytes;
use tonic::body::Body;

use super::connections::{
    backlog::{Backlog, WaitingPermit},
    request_body::{BodyReport, Expected, report_while},
};
use crate::grpc::status::Failure;

/// The delay after which a call counts as waiting for its message. In a burst of calls, clients
/// send all headers first and the messages right after them. These calls need not be counted.
const LATE_AFTER: Duration = Duration::from_millis(250);

/// The error of a unary call that has a second message.
const SECOND_MESSAGE: &str = "the call has more than one message, and this RPC takes one";
/// The error of a body whose framing cannot be parsed.
const MALFORMED: &str = "the framing of the body is malformed";

/// Runs the future of a call. While the call waits for its message, it counts against its peer's
/// backlog. Once the call waits for anything else, it needs a permit, which `enter` grants or
/// refuses. A future that is ready at its first poll needs neither. The call fails if it has a
/// second message but only one is expected, and ends if its client is gone before the message is
/// complete. The future is passed by reference, so that it is not stored a second time.
pub(super) async fn run_limited<T, P>(
    (backlog, expected): (Option<&Arc<Backlog>>, Expected),
    mut enter: impl FnMut() -> Result<P, Failure>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    let mut permit = None;
    let mut late = MessageWait::default();
    poll_fn(|cx| {
        let (polled, report) = report_while(expected, || work.as_mut().poll(cx));
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Ok(done));
        }
        let admitted = failure_of(report).map_or_else(
            || match (report, &permit) {
                (BodyReport::Awaited, _) => late.wait(backlog, cx),
                (_, None) => {
                    late = MessageWait::default();
                    enter().map(|entered| permit = Some(entered))
                }
                (_, Some(_)) => {
                    late = MessageWait::default();
                    Ok(())
                }
            },
            Err,
        );
        admitted.map_or_else(|failure| Poll::Ready(Err(failure)), |()| Poll::Pending)
    })
    .await
}

/// Returns the failure that this report of a call's body means, if any.
pub(super) fn failure_of(report: BodyReport) -> Option<Failure> {
    match report {
        BodyReport::TooMuch => Some(Failure::Overloaded),
        BodyReport::SecondMessage => Some(Failure::Unreadable(SECOND_MESSAGE.to_owned())),
        BodyReport::Malformed => Some(Failure::Unreadable(MALFORMED.to_owned())),
        BodyReport::Gone => Some(Failure::Cancelled),
        BodyReport::Nothing | BodyReport::Awaited => None,
    }
}

/// State of the wait for a request message.
#[derive(Default)]
struct MessageWait {
    timer: Option<Pin<Box<Sleep>>>,
    seat: Option<WaitingPermit>,
}

impl MessageWait {
    fn wait(
        &mut self,
        backlog: Option<&Arc<Backlog>>,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let Some(backlog) = backlog.filter(|_| self.seat.is_none()) else {
            return Ok(());
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(LATE_AFTER)));
        if timer.as_mut().poll(cx).is_ready() {
            self.seat = Some(backlog.wait().ok_or(Failure::Overloaded)?);
        }
        Ok(())
    }
}

/// How long a refused call waits for the rest of its message.
const DISCARD_FOR: Duration = Duration::from_millis(100);

/// Discards the rest of the message of a refused call, up to `up_to` bytes. Otherwise the stream
/// would have to be reset (RFC 9113 §8.1). The h2 crate keeps state for only a few reset streams.
/// If messages arrive late on other reset streams, h2 counts them as errors of the client, and
/// closes the connection after `--max-resets` of them. While the store is unavailable, a client
/// that merely retries would then see `RESOURCE_EXHAUSTED`.
pub(super) async fn discard(body: &mut Body, up_to: usize) {
    let reading = async {
        let mut bytes = 0;
        while bytes <= up_to
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // If the message is late or too long, the stream is reset nevertheless.
    let _ = timeout(DISCARD_FOR, reading).await;
}

/// Buffers a body until it ends or exceeds `up_to` bytes. The rest of a longer body stays a stream,
/// so that the decoder refuses the body.
pub(super) async fn collected(mut body: Body, up_to: usize) -> Body {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while bytes <= up_to {
        let Some(frame) = body.frame().await else {
            break;
        };
        let arrived = frame.as_ref().ok();
        let data = arrived.and_then(|frame| frame.data_ref());
        bytes += data.map_or(0, Bytes::len);
        let is_last = arrived.is_none();
        frames.push(frame);
        if is_last {
            break;
        }
    }
    let rest = BodyStream::new(body);
    Body::new(StreamBody::new(stream::iter(frames).chain(rest)))
}
