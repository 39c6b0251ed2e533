//! How long a connection lives: until it fails, until its maximum age, or until the server stops. A
//! client that keeps its connection alive must not lose a request when the connection ends.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::server::graceful::GracefulConnection;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Connections, socket::PrefaceFlag};

/// How a client learns that its connection ends.
pub(super) enum Ending {
    /// HTTP/2: by GOAWAY, which names the last call that is answered. The flag says whether the
    /// client has sent its preface.
    Goaway(PrefaceFlag),
    /// HTTP/1.1: by `connection: close` in a response. The flag announces that the next response is
    /// the last. An idle connection that is closed without it could lose the request that its client
    /// sends at that instant.
    Announced(Arc<AtomicBool>),
}

impl<S> Connections<S> {
    /// Serves a connection. Closes an HTTP/2 connection whose client sends no preface in time. At its
    /// maximum age, the connection is shut down gracefully: calls in progress get time to finish. An
    /// HTTP/1.1 connection is first given the same time for one more request, and when the process
    /// begins to drain, the time until `stop`. On `stop`, the connection is shut down gracefully at
    /// once.
    pub(super) async fn keep<C>(&self, connection: C, ending: Ending, stop: CancellationToken)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let (preface, mut is_last) = match ending {
            Ending::Goaway(preface) => (Some(preface), None),
            Ending::Announced(is_last) => (None, Some(is_last)),
        };
        let grace = self.tuning.max_connection_age_grace;
        let mut connection = pin!(connection);
        let mut begin_by = pin!(sleep(self.tuning.handshake_timeout));
        let mut next_stage = pin!(sleep(self.age()));
        let (mut waiting, mut closing, mut draining) = (preface.is_some(), false, false);
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = &mut begin_by, if waiting => {
                    waiting = false;
                    if preface.as_ref().is_some_and(|preface| !preface.is_complete()) {
                        return self.metrics.refuse_connection("slow");
                    }
                }
                // The caller of `serve` enforces the drain grace.
                () = &mut next_stage, if !draining => {
                    if closing {
                        return;
                    }
                    if !announce(&mut is_last) {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    next_stage.set(sleep(grace));
                }
                () = self.draining.cancelled(), if is_last.is_some() => {
                    announce(&mut is_last);
                    next_stage.set(sleep(Duration::MAX));
                }
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// Returns the maximum age of a connection, with ±10 % jitter, so that connections do not all
    /// end at once.
    fn age(&self) -> Duration {
        let mut byte = [0];
        let spread = match self.entropy.fill(&mut byte) {
            Ok(()) => f64::from(byte[0]) / f64::from(u8::MAX),
            Err(_) => 0.5,
        };
        self.tuning.max_connection_age.mul_f64(0.9 + 0.2 * spread)
    }
}

/// Announces that the next response is the last. Returns false if there is nothing to announce, or
/// if it was announced before.
fn announce(is_last: &mut Option<Arc<AtomicBool>>) -> bool {
    let flag = is_last.take();
    if let Some(flag) = &flag {
        flag.store(true, Ordering::Relaxed);
    }
    flag.is_some()
}
