//! The only place that reads a clock. A test gives its own.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::timestamp::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// The instant on the wall. Never goes back within a process (R8).
    fn now(&self) -> Timestamp;

    /// Time since some fixed point, the time that the host was suspended included; for
    /// measuring how long, never for what date.
    fn monotonic(&self) -> Duration;
}

/// The clock of the host.
#[derive(Debug)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl SystemClock {
    /// The clock.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            latest: AtomicI64::new(i64::MIN),
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

    fn monotonic(&self) -> Duration {
        // CLOCK_BOOTTIME: the monotonic clock stops while the host is suspended, and a lease
        // measured by it would outlive its bound.
        let read = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(read.tv_nsec).unwrap_or_default())
    }
}
