//! The lease. It states how fresh a replica's cache is, and whether the cache may still be used for
//! answers. The code is pure: it takes origins and instants of one monotonic clock, and returns a
//! decision.
//!
//! The lease records two facts, each dated with the instant at which the operation *started*.
//! First, all changes acknowledged before `read` are applied in this process. Second, the database
//! that was read was still the primary at `beat`, because it committed a heartbeat then. So every
//! change acknowledged anywhere before the earlier of the two instants is applied, and the age of
//! the cache is measured from that instant.
//!
//! Both facts must come from the same database. Therefore neither can be set from an instant alone,
//! only from [`Evidence`]. Only [`Adopted::evidence`] creates evidence, and only for the adopted
//! origin.

use std::time::Duration;

use crate::origin::Origin;

/// A number that identifies a tenure, which is the period from the adoption of one origin to the
/// next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure(u64);

impl Tenure {
    /// Returns the number of the tenure.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Proof that the adopted database was queried, dated with the instant at which the request
/// started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    tenure: Tenure,
    started: Duration,
}

impl Evidence {
    /// Returns when the request started.
    #[must_use]
    pub const fn started(self) -> Duration {
        self.started
    }

    /// Returns the tenure in which the evidence was obtained.
    #[must_use]
    pub const fn tenure(self) -> Tenure {
        self.tenure
    }
}

/// How recently one database was read, and how recently it was known to be the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    tenure: Tenure,
    /// When the last successful read of the change log started. `None` before the first read.
    read: Option<Duration>,
    /// When the last heartbeat that the primary committed was started. `None` before the first one.
    beat: Option<Duration>,
}

impl Lease {
    /// Creates a lease for a process that knows from another source that every change acknowledged
    /// before `since` is applied. `None` means that the process knows nothing yet.
    #[must_use]
    pub const fn since_then(since: Option<Duration>) -> Self {
        Self {
            tenure: Tenure(0),
            read: since,
            beat: since,
        }
    }

    /// Returns the lease, renewed at `now`. Only for a store that no other process changes, because
    /// in such a store every change is applied when it is made.
    #[must_use]
    pub const fn held(self, now: Duration) -> Self {
        Self {
            read: Some(now),
            beat: Some(now),
            ..self
        }
    }

    /// Returns the lease as if the database had proved at `now` that it is the primary. Only for
    /// tests that show why the proof is needed.
    #[must_use]
    pub const fn without_beat(self, now: Duration) -> Self {
        Self {
            beat: Some(now),
            ..self
        }
    }

    /// Returns the tenure of this lease.
    #[must_use]
    pub const fn tenure(self) -> Tenure {
        self.tenure
    }

    /// Returns when the last successful read of the change log started.
    #[must_use]
    pub const fn read_since(self) -> Option<Duration> {
        self.read
    }

    /// Returns the latest instant before which every acknowledged change is known to be applied.
    #[must_use]
    pub fn since(self) -> Option<Duration> {
        Some(self.read?.min(self.beat?))
    }

    /// Returns whether cached facts may be used for an answer at `now`, which is the case if they
    /// are no older than `bound`.
    #[must_use]
    pub fn covers(self, now: Duration, bound: Duration) -> bool {
        self.since()
            .is_some_and(|since| now.saturating_sub(since) <= bound)
    }

    /// Returns whether the result of a read of the store may be used for an answer at `now`.
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

    /// Returns the age of the cached facts at `now`, measured from [`Self::since`].
    #[must_use]
    pub fn age(self, now: Duration) -> Option<Duration> {
        self.since().map(|since| now.saturating_sub(since))
    }
}

/// Whether the result of a read of the store may be used for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// The result may be used for an answer.
    Answer,
    /// The read started too long ago.
    TooOld,
    /// The read belongs to another tenure, so it may come from another database.
    Elsewhere,
    /// The read is fresh, but it is not known whether the database is still the primary. The next
    /// heartbeat will show this. The caller may wait for it until `left` has passed.
    Unproven {
        /// The time after which the read becomes too old.
        left: Duration,
    },
}

/// The adopted database, which is the database that this process trusts, and its lease.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    origin: Option<Origin>,
    lease: Lease,
}

impl Adopted {
    /// Returns the state after the adoption of a database that has just committed a heartbeat,
    /// which started at `beat`. Discards the previous state, because it was about another database.
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

    /// Returns the adopted database, or `None` before the first adoption.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Returns the lease of the adopted database.
    #[must_use]
    pub const fn lease(&self) -> Lease {
        self.lease
    }

    /// Returns evidence from a request to the database `origin` that started at `started`. Returns
    /// `None` if that database is not the adopted one.
    #[must_use]
    pub fn evidence(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        let adopted = self.origin.as_ref()?;
        adopted.is(origin).then_some(Evidence {
            tenure: self.lease.tenure,
            started,
        })
    }

    /// Records that all changes that this read of the change log found are applied.
    #[must_use]
    pub fn read(mut self, evidence: Evidence) -> Self {
        if evidence.tenure == self.lease.tenure {
            self.lease.read = self.lease.read.max(Some(evidence.started));
        }
        self
    }

    /// Records that the adopted database has committed this heartbeat.
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
        // This must also hold if the same origin is adopted again, because evidence from before an
        // adoption is always discarded.
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
