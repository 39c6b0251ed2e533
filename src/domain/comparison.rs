//! Comparing this process's clock with another one, which is read somewhere within a round trip.

use std::time::Duration;

use super::{clock::Clock, timestamp::Timestamp};

/// What this process's clocks said before the other clock was asked.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    wall: Timestamp,
    started: Duration,
}

/// How two clocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Microseconds by which this process's clock is ahead of the other one.
    pub ahead: i64,
    /// Microseconds that this can be wrong by: half of the round trip.
    pub uncertain: i64,
}

impl Comparison {
    /// Reads this process's clocks. Ask the other one after it.
    #[must_use]
    pub fn begin(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.wall(),
            started: clock.monotonic(),
        }
    }

    /// Returns the difference to what the other clock answered, now that the answer is here.
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
    /// Whether it exceeds the permitted skew for certain. A slow answer raises no alarm.
    #[must_use]
    pub fn exceeds(&self, permitted: Duration) -> bool {
        self.certain() > permitted
    }

    /// The part that is certain.
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
        // Read at the start of a round trip of six seconds, or at its end: they agree.
        assert!(!difference(100, 100, 6).exceeds(SKEW));
        assert!(!difference(100, 106, 6).exceeds(SKEW));
        assert!(difference(100, 109, 6).exceeds(SKEW));
    }
}
