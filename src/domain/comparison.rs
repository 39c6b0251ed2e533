//! Compares this process's clock with another clock. The other clock is read at an unknown moment
//! within a round trip, so the difference has an uncertainty.

use std::time::Duration;

use super::{clock::Clock, timestamp::Timestamp};

/// Readings of this process's clocks, taken before the other clock is queried.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    wall: Timestamp,
    started: Duration,
}

/// The difference between two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The number of microseconds by which this process's clock is ahead of the other clock.
    pub ahead: i64,
    /// The uncertainty of `ahead` in microseconds, which is half of the round trip.
    pub uncertain: i64,
}

impl Comparison {
    /// Reads this process's clocks. Query the other clock after this call.
    #[must_use]
    pub fn begin(clock: &dyn Clock) -> Self {
        // The order matters: a pause between the two readings must add to the uncertainty.
        let started = clock.monotonic();
        let wall = clock.wall();
        Self { wall, started }
    }

    /// Returns the difference from the other clock, which showed `theirs`. Call this as soon as the
    /// answer arrives.
    #[must_use]
    pub fn end(&self, theirs: Timestamp, clock: &dyn Clock) -> Difference {
        self.ended_at(theirs, clock.monotonic())
    }

    fn ended_at(&self, theirs: Timestamp, ended: Duration) -> Difference {
        let half = ended.saturating_sub(self.started) / 2;
        let half = i64::try_from(half.as_micros()).unwrap_or(i64::MAX / 4);
        Difference {
            ahead: self.wall.as_micros() + half - theirs.as_micros(),
            uncertain: half,
        }
    }
}

impl Difference {
    /// Returns whether the difference is certain to exceed the permitted skew.
    #[must_use]
    pub fn exceeds(&self, permitted: Duration) -> bool {
        self.certain() > permitted
    }

    /// Returns the difference minus its uncertainty, but at least zero.
    #[must_use]
    pub fn certain(&self) -> Duration {
        let certain = self.ahead.abs().saturating_sub(self.uncertain);
        Duration::from_micros(u64::try_from(certain).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(2);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    fn difference(ours: i64, theirs: i64, took: u64) -> Difference {
        let comparison = Comparison {
            wall: at(ours),
            started: Duration::from_secs(7),
        };
        comparison.ended_at(at(theirs), Duration::from_secs(7 + took))
    }

    #[test]
    fn either_clock_can_be_ahead() {
        assert_eq!(difference(103, 100, 0).ahead, 3_000_000);
        assert!(difference(103, 100, 0).exceeds(SKEW));
        assert!(difference(100, 103, 0).exceeds(SKEW));
        assert!(!difference(102, 100, 0).exceeds(SKEW));
    }

    #[test]
    fn what_a_slow_answer_leaves_uncertain_is_no_difference() {
        // In a round trip of 6 s, these clocks agree if the other clock was read at the start or at
        // the end.
        assert!(!difference(100, 100, 6).exceeds(SKEW));
        assert!(!difference(100, 106, 6).exceeds(SKEW));
        assert!(difference(100, 109, 6).exceeds(SKEW));
    }
}
