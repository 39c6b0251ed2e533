//! Defines which clock dates a change, and how far clocks may differ (R8). On PostgreSQL, the
//! database's clock dates a change. On SQLite, it is the clock of this process.

use std::{sync::atomic::Ordering, time::Duration};

use crate::domain::timestamp::Timestamp;
use crate::store::Store;

/// The default permitted skew.
pub(in crate::store) const DEFAULT_MAX_SKEW_MICROS: u64 = 2_000_000;

impl Store {
    /// Sets the permitted clock skew.
    pub fn set_max_clock_skew(&self, max: Duration) {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        self.max_skew_micros.store(micros, Ordering::Relaxed);
    }

    /// Returns the permitted clock skew.
    #[must_use]
    pub fn max_skew(&self) -> Duration {
        Duration::from_micros(self.max_skew_micros.load(Ordering::Relaxed))
    }

    /// Makes changes use this process's clock on PostgreSQL too. Only for tests that use one clock
    /// on both engines, or that show why the database's clock is used.
    #[must_use]
    pub const fn deciding_by_own_clock(mut self) -> Self {
        self.own_clock_decides = true;
        self
    }

    /// Sets the freshness bound, which is how long another replica may still answer with the state
    /// before a change.
    pub fn set_freshness_bound(&self, bound: Duration) {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.freshness_micros.store(micros, Ordering::Relaxed);
    }

    /// Returns the latest time, by the clock of any other replica, at which that replica may still
    /// answer as before a change that is decided at `at`. Its clock may be ahead, and it may apply
    /// the change as late as the freshness bound allows. Returns `at` if this process's clock
    /// decides, as on SQLite, where there is only one process.
    pub(in crate::store) fn latest(&self, at: Timestamp) -> Timestamp {
        if self.own_clock_decides {
            return at;
        }
        let bound = Duration::from_micros(self.freshness_micros.load(Ordering::Relaxed));
        at.plus(self.max_skew().saturating_add(bound))
    }
}
