//! Which clock decides, and by how much clocks may differ (R8).

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

    /// Returns the latest time that a correct clock of another replica can show when the deciding
    /// clock shows `at`. On SQLite there is one clock.
    pub(in crate::store) fn latest(&self, at: Timestamp) -> Timestamp {
        if self.own_clock_decides {
            return at;
        }
        at.plus(self.max_skew())
    }
}
