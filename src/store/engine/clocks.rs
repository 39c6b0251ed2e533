//! The clock that sets the time of a change, the database's or this process's, and the permitted
//! skew of clocks (R8).

use std::{sync::atomic::Ordering, time::Duration};

use crate::domain::timestamp::Timestamp;
use crate::store::Store;

/// The default permitted skew.
pub(in crate::store) const DEFAULT_MAX_SKEW_MICROS: u64 = 2_000_000;

impl Store {
    /// Sets the permitted clock skew.
    pub fn permit_skew(&self, max: Duration) {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        self.max_skew_micros.store(micros, Ordering::Relaxed);
    }

    /// Returns the permitted clock skew.
    #[must_use]
    pub fn max_skew(&self) -> Duration {
        Duration::from_micros(self.max_skew_micros.load(Ordering::Relaxed))
    }

    /// Makes this process's clock decide on PostgreSQL too: for tests that control one clock for
    /// both engines, and as a negative control. No setting does this.
    #[must_use]
    pub const fn deciding_by_own_clock(mut self) -> Self {
        self.own_clock_decides = true;
        self
    }

    /// Sets the freshness bound: how long another replica may answer from the state before a change.
    pub fn answer_within(&self, bound: Duration) {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.freshness_micros.store(micros, Ordering::Relaxed);
    }

    /// Returns the latest time at which another replica may still answer without a change that is
    /// decided at `at`: its clock may be ahead, and it applies the change within the freshness bound.
    /// On SQLite there is one clock and one process.
    pub(in crate::store) fn latest(&self, at: Timestamp) -> Timestamp {
        if self.own_clock_decides {
            return at;
        }
        let bound = Duration::from_micros(self.freshness_micros.load(Ordering::Relaxed));
        at.plus(self.max_skew().saturating_add(bound))
    }
}
