//! How fresh what a replica remembers is, and whether it may still be answered. Pure: instants
//! of one monotonic clock and origins in, yes or no out.
//!
//! Two things are known of the past, each by the instant at which it was *started*: that all
//! changes acknowledged before `read` are applied here, and that the database read from was
//! the primary at `beat`, since it committed then. What was acknowledged anywhere before the
//! earlier of the two is applied, so that is the point that everything is measured from.
//!
//! Both must be of one database. So neither can be set from an instant alone: it takes
//! [`Evidence`], which only [`Adopted::evidence`] makes, for whoever has the origin adopted.

use std::time::Duration;

use crate::origin::Origin;

/// The time between two adoptions of an origin, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure(u64);

impl Tenure {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Something learned from the database that was adopted, by the instant at which the asking
/// was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    tenure: Tenure,
    started: Duration,
}

impl Evidence {
    /// When the asking was started.
    #[must_use]
    pub const fn started(self) -> Duration {
        self.started
    }

    /// Of which adoption.
    #[must_use]
    pub const fn tenure(self) -> Tenure {
        self.tenure
    }
}

/// What is known of the past of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    tenure: Tenure,
    /// When the last successful reading of the history was started; `None` before the first.
    read: Option<Duration>,
    /// When the last successful commit on the primary was started.
    beat: Option<Duration>,
}

impl Lease {
    /// Where everything acknowledged before an instant is known from elsewhere; `None` where
    /// nothing is.
    #[must_use]
    pub const fn since_then(since: Option<Duration>) -> Self {
        Self {
            tenure: Tenure(0),
            read: since,
            beat: since,
        }
    }

    /// As it is where nobody else makes changes: everything is applied when it is made.
    #[must_use]
    pub const fn held(self, now: Duration) -> Self {
        Self {
            read: Some(now),
            beat: Some(now),
            ..self
        }
    }

    /// As if the database had proved just now that it is the primary: for a negative control.
    #[must_use]
    pub const fn without_beat(self, now: Duration) -> Self {
        Self {
            beat: Some(now),
            ..self
        }
    }

    /// Of which adoption this is.
    #[must_use]
    pub const fn tenure(self) -> Tenure {
        self.tenure
    }

    /// When the last reading of the history was started.
    #[must_use]
    pub const fn read_since(self) -> Option<Duration> {
        self.read
    }

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

    /// What a reading of the store is worth at `now`.
    #[must_use]
    pub fn judge(self, reading: Evidence, now: Duration, bound: Duration) -> Worth {
        let age = |at: Duration| now.saturating_sub(at);
        if reading.tenure != self.tenure {
            Worth::Elsewhere
        } else if age(reading.started) > bound {
            Worth::TooOld
        } else if self.read.is_some() && self.beat.is_some_and(|beat| age(beat) <= bound) {
            Worth::Answer
        } else {
            Worth::Unproven {
                left: bound.saturating_sub(age(reading.started)),
            }
        }
    }

    /// How old the point is that everything is measured from.
    #[must_use]
    pub fn age(self, now: Duration) -> Option<Duration> {
        self.since().map(|since| now.saturating_sub(since))
    }
}

/// What a reading of the store is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It may be answered.
    Answer,
    /// It was started too long ago.
    TooOld,
    /// It is of a database that is not the one adopted by now.
    Elsewhere,
    /// It is fresh, but nobody knows whether the database is still the primary: the next
    /// heartbeat tells, and for so long it is worth waiting for.
    Unproven {
        /// After this the reading is too old.
        left: Duration,
    },
}

/// The database that is trusted, and what is known of its past.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    origin: Option<Origin>,
    lease: Lease,
}

impl Adopted {
    /// Trusts the database that has just committed a heartbeat started at `beat`, and nothing
    /// that is known from before: that was of another.
    #[must_use]
    pub const fn adopt(&self, origin: Origin, beat: Duration) -> Self {
        Self {
            origin: Some(origin),
            lease: Lease {
                tenure: Tenure(self.lease.tenure.0 + 1),
                read: None,
                beat: Some(beat),
            },
        }
    }

    /// The database, if there is one yet.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// What is known of its past.
    #[must_use]
    pub const fn lease(&self) -> Lease {
        self.lease
    }

    /// What was learned from a database by asking that was started then; `None` where it is
    /// not the one that is trusted.
    #[must_use]
    pub fn evidence(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        let adopted = self.origin.as_ref()?;
        adopted.is(origin).then_some(Evidence {
            tenure: self.lease.tenure,
            started,
        })
    }

    /// All changes that a reading of the history found are applied.
    #[must_use]
    pub fn read(mut self, evidence: Evidence) -> Self {
        if evidence.tenure == self.lease.tenure {
            self.lease.read = self.lease.read.max(Some(evidence.started));
        }
        self
    }

    /// The database has committed a heartbeat.
    #[must_use]
    pub fn beat(mut self, evidence: Evidence) -> Self {
        if evidence.tenure == self.lease.tenure {
            self.lease.beat = self.lease.beat.max(Some(evidence.started));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn adopted(epoch: i64, beat: u64) -> Adopted {
        Adopted::default().adopt(Origin::sole(epoch), at(beat))
    }

    fn heard(adopted: &Adopted, epoch: i64, started: u64) -> Option<Evidence> {
        adopted.evidence(&Origin::sole(epoch), at(started))
    }

    #[test]
    fn nothing_is_covered_before_both_are_known() {
        assert!(!Lease::default().covers(at(0), BOUND));
        assert!(!Lease::since_then(None).covers(at(0), BOUND));
        assert!(!adopted(1, 0).lease().covers(at(0), BOUND));
    }

    #[test]
    fn the_earlier_of_the_two_counts() {
        let adopted = adopted(1, 100);
        let read = heard(&adopted, 1, 500).unwrap();
        let lease = adopted.read(read).lease();
        assert!(lease.covers(at(1100), BOUND));
        assert!(!lease.covers(at(1101), BOUND));
        assert_eq!(lease.age(at(300)), Some(at(200)));
    }

    #[test]
    fn a_reading_counts_from_its_start_and_only_from_a_proven_primary() {
        let adopted = adopted(1, 900);
        let reading = heard(&adopted, 1, 1000).unwrap();
        let unproven = adopted.lease().judge(reading, at(1200), BOUND);
        assert_eq!(unproven, Worth::Unproven { left: at(800) });
        let lease = adopted.read(reading).lease();
        assert_eq!(lease.judge(reading, at(1900), BOUND), Worth::Answer);
        let late = Worth::Unproven { left: at(99) };
        assert_eq!(lease.judge(reading, at(1901), BOUND), late);
        assert_eq!(lease.judge(reading, at(2001), BOUND), Worth::TooOld);
    }

    #[test]
    fn there_is_no_evidence_of_another_origin() {
        let adopted = adopted(1, 0);
        assert_eq!(heard(&adopted, 2, 10), None);
        assert_eq!(heard(&Adopted::default(), 1, 10), None);
    }

    #[test]
    fn evidence_of_a_former_origin_renews_nothing_and_is_worth_nothing() {
        let former = adopted(1, 0);
        let old = heard(&former, 1, 700).unwrap();
        let read = former.clone().read(old);
        assert!(read.lease().covers(at(1000), BOUND));
        // Also where the same one is adopted again: what was known in between is gone.
        for next in [Origin::sole(2), Origin::sole(1)] {
            let now = read.adopt(next, at(800));
            let lease = now.clone().read(old).beat(old).lease();
            assert!(!lease.covers(at(801), BOUND));
            assert_eq!(lease.judge(old, at(801), BOUND), Worth::Elsewhere);
        }
    }

    #[test]
    fn what_is_known_never_goes_back() {
        let adopted = adopted(1, 500);
        let (early, late) = (heard(&adopted, 1, 400), heard(&adopted, 1, 600));
        let (early, late) = (early.unwrap(), late.unwrap());
        let known = adopted.read(late).read(early).beat(early);
        assert_eq!(known.lease().since(), Some(at(500)));
    }
}
