//! The clock interface. Code that needs the time takes it as an argument, so that a test can
//! supply another.

use std::time::Duration;

use crate::timestamp::Timestamp;

/// A source of wall-clock time and of elapsed time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time. Without a [`fault`](Self::fault) it never goes back within a
    /// process (R8).
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed point, including the time that the host was suspended. Only
    /// for measuring durations.
    fn monotonic(&self) -> Duration;

    /// Returns the raw wall-clock time, even during a fault, so that it can be compared with
    /// another clock.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// Returns what is wrong with the wall clock. During a fault, no decision may depend on it.
    fn fault(&self) -> Option<ClockFault> {
        None
    }

    /// Returns how often the wall clock stepped by more than the permitted skew.
    fn steps(&self) -> u64 {
        0
    }

    /// Sets the permitted skew, and whether the database's clock is compared with this one. Only if
    /// it is compared does the clock wait for a first comparison before it is trusted.
    fn permit(&self, _max_skew: Duration, _compared: bool) {}

    /// Records whether the last comparison with the database's clock was within the skew.
    fn compared(&self, _agrees: bool) {}

    /// Returns whether the first comparison was made, or none is needed.
    fn is_compared(&self) -> bool {
        true
    }
}

/// Why the wall clock cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFault {
    /// It was set back to before a time that this process has already answered with.
    Behind,
    /// It differs from the database's clock by more than the permitted skew.
    Differs,
    /// It stepped, and has not been compared with the database's clock since.
    Unconfirmed,
}
