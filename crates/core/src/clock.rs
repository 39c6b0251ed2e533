//! The clock interface. Code that needs the time gets a clock as an argument, so that tests can
//! pass their own clock.

use std::time::Duration;

use crate::timestamp::Timestamp;

/// A source of wall-clock time and of elapsed time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time. While there is no [`fault`](Self::fault), this time never
    /// decreases within a process (R8).
    fn now(&self) -> Timestamp;

    /// Returns the time since a fixed point, including time during which the host was suspended.
    /// Use this only to measure durations.
    fn monotonic(&self) -> Duration;

    /// Returns both times, read together. This is cheaper than two calls.
    fn read(&self) -> ClockReading {
        ClockReading {
            now: self.now(),
            monotonic: self.monotonic(),
        }
    }

    /// Returns the raw wall-clock time, even during a fault. It is used to compare this clock with
    /// another one.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// Returns what is wrong with the wall clock, or `None` if nothing is. During a fault, nothing
    /// may be decided with the wall-clock time.
    fn fault(&self) -> Option<ClockFault> {
        None
    }

    /// Returns how many times the wall clock stepped by more than the permitted skew.
    fn steps(&self) -> u64 {
        0
    }

    /// Sets the permitted skew, and whether this clock is compared with the database's clock. If
    /// so, this clock is not trusted before the first comparison.
    fn permit(&self, _max_skew: Duration, _compared: bool) {}

    /// Records the result of a comparison with the database's clock. `agrees` is whether the clocks
    /// differed by no more than the permitted skew.
    fn compared(&self, _agrees: bool) {}

    /// Returns whether the clock has been compared at least once, or does not need to be compared.
    fn is_compared(&self) -> bool {
        true
    }
}

/// The wall-clock time and the elapsed time at one instant, as [`Clock::now`] and
/// [`Clock::monotonic`] return them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall-clock time.
    pub now: Timestamp,
    /// The time since a fixed point.
    pub monotonic: Duration,
}

/// Why the wall clock cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFault {
    /// The wall clock was set back to before a time that this process has already used in an
    /// answer.
    Behind,
    /// The wall clock differs from the database's clock by more than the permitted skew.
    Differs,
    /// The wall clock stepped, and has not been compared with the database's clock since then.
    Unconfirmed,
}
