//! How fresh what a replica remembers is, and whether it may still be answered. Pure: instants
//! of one monotonic clock in, yes or no out.
//!
//! Two things are known of the past, each by the instant at which it was *started*: that all
//! changes acknowledged before `read` are applied here, and that the database read from was
//! the primary at `beat`, since it committed then. What was acknowledged anywhere before the
//! earlier of the two is applied, so that is the point that everything is measured from.

use std::time::Duration;

/// What is known of the past; `None` where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// When the last successful reading of the history was started.
    pub read: Option<Duration>,
    /// When the last successful commit on the primary was started.
    pub beat: Option<Duration>,
}

impl Lease {
    /// The point before which everything acknowledged is applied.
    #[must_use]
    pub fn since(self) -> Option<Duration> {
        Some(self.read?.min(self.beat?))
    }

    /// Whether what is remembered may be answered at `now`.
    #[must_use]
    pub fn covers(self, now: Duration, bound: Duration) -> bool {
        self.since()
            .is_some_and(|since| now.saturating_sub(since) <= bound)
    }

    /// Whether a reading of the store that was started at `started` may be answered at `now`:
    /// it is fresh enough, and so is the knowledge that it was the primary's.
    #[must_use]
    pub fn covers_read(self, started: Duration, now: Duration, bound: Duration) -> bool {
        Self {
            read: Some(started),
            beat: self.beat,
        }
        .covers(now, bound)
    }

    /// How old the point is that everything is measured from.
    #[must_use]
    pub fn age(self, now: Duration) -> Option<Duration> {
        self.since().map(|since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_covered_before_both_are_known() {
        assert!(!Lease::default().covers(at(0), BOUND));
        assert!(
            !Lease {
                read: Some(at(0)),
                beat: None
            }
            .covers(at(0), BOUND)
        );
        assert!(
            !Lease {
                read: None,
                beat: Some(at(0))
            }
            .covers(at(0), BOUND)
        );
    }

    #[test]
    fn the_earlier_of_the_two_counts() {
        let lease = Lease {
            read: Some(at(500)),
            beat: Some(at(100)),
        };
        assert!(lease.covers(at(1100), BOUND));
        assert!(!lease.covers(at(1101), BOUND));
        assert_eq!(lease.age(at(300)), Some(at(200)));
    }

    #[test]
    fn a_reading_counts_from_its_start_and_only_from_a_primary() {
        let lease = Lease {
            read: None,
            beat: Some(at(900)),
        };
        assert!(lease.covers_read(at(1000), at(1900), BOUND));
        assert!(!lease.covers_read(at(1000), at(1901), BOUND));
        assert!(!Lease::default().covers_read(at(1000), at(1000), BOUND));
    }
}
