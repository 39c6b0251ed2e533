//! The only place that reads a clock. A test gives its own.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::timestamp::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// The instant on the wall. Never goes back within a process (R8).
    fn now(&self) -> Timestamp;

    /// Time since some fixed point; for measuring how long, never for what date.
    fn monotonic(&self) -> Duration;
}

/// The clock of the host.
#[derive(Debug)]
pub struct SystemClock {
    latest: AtomicI64,
    started: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else asks"
    )]
    pub fn new() -> Self {
        Self {
            latest: AtomicI64::new(i64::MIN),
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else asks"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let read = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        let before = self.latest.fetch_max(read, Ordering::Relaxed);
        // A host whose clock is outside the years 0001 to 9999 is as good as at the epoch.
        Timestamp::from_micros(read.max(before)).unwrap_or(Timestamp::EPOCH)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everything else asks"
    )]
    fn monotonic(&self) -> Duration {
        Instant::now().duration_since(self.started)
    }
}
