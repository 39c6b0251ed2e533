//! Waiting for the message of a call. Until it is there the call costs bytes of its peer's share,
//! and no place.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
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
    arriving::{Said, said_while},
    share::{Seat, Share},
};
use crate::grpc::status::Failure;

/// A message that is later than this counts as waited for: a burst of calls sends its headers
/// first and its messages right behind.
const LATE_AFTER: Duration = Duration::from_millis(250);

/// Runs what a call does. While it waits for its message, that counts against its peer's share;
/// once it waits for anything else, it needs a place, which `enter` gives or refuses. What is
/// ready at once needs neither.
pub(super) async fn attended<T, P>(
    share: Option<&Arc<Share>>,
    mut enter: impl FnMut() -> Result<P, Failure>,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    let mut place = None;
    let mut late = Late::default();
    poll_fn(|cx| {
        let (polled, said) = said_while(|| work.as_mut().poll(cx));
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Ok(done));
        }
        let admitted = match said {
            Said::Awaited => late.wait(share, cx),
            Said::TooMuch => Err(Failure::Overloaded),
            Said::Nothing => {
                late = Late::default();
                match &place {
                    Some(_) => Ok(()),
                    None => enter().map(|entered| place = Some(entered)),
                }
            }
        };
        admitted.map_or_else(|failure| Poll::Ready(Err(failure)), |()| Poll::Pending)
    })
    .await
}

/// A message that is waited for.
#[derive(Default)]
struct Late {
    timer: Option<Pin<Box<Sleep>>>,
    seat: Option<Seat>,
}

impl Late {
    fn wait(&mut self, share: Option<&Arc<Share>>, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(share) = share.filter(|_| self.seat.is_none()) else {
            return Ok(());
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(LATE_AFTER)));
        if timer.as_mut().poll(cx).is_ready() {
            self.seat = Some(share.wait().ok_or(Failure::Overloaded)?);
        }
        Ok(())
    }
}

/// How long a refusal waits for the message of its call.
const DISCARD_FOR: Duration = Duration::from_millis(100);

/// Reads the message of a call that is refused without it, up to so many bytes. A stream that is
/// answered before its request has ended has to be reset (RFC 9113 §8.1). The library forgets all
/// but a few of those, takes their messages for faults of the client, and closes the connection
/// after `--max-resets`: an outage would end as `RESOURCE_EXHAUSTED` for a client that only asks again.
pub(super) async fn discard(body: &mut Body, up_to: usize) {
    let reading = async {
        let mut bytes = 0;
        while bytes <= up_to
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A message that is late, or too long, is reset after all.
    let _ = timeout(DISCARD_FOR, reading).await;
}

/// A body that has arrived, up to so many bytes. What is longer follows as it comes, for the
/// decoder to refuse.
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
