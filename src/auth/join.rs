//! Runs several futures concurrently within one future, without spawning tasks. Dropping this
//! future stops all of them.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

/// Completes when all parts have completed. Suitable only for a few parts, because each wake-up
/// polls all of them.
pub(super) async fn join<F: Future<Output = ()> + Send>(parts: impl Iterator<Item = F>) {
    let mut parts: Vec<Pin<Box<F>>> = parts.map(Box::pin).collect();
    poll_fn(|context: &mut Context<'_>| {
        parts.retain_mut(|part| part.as_mut().poll(context).is_pending());
        if parts.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
