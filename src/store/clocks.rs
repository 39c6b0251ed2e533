//! Which clock decides, and by how much clocks may differ (R8).

use std::{sync::atomic::Ordering, time::Duration};

use super::Store;
use crate::domain::timestamp::Timestamp;

/// The permitted skew, where nobody says.
pub(super) const DEFAULT_MAX_SKEW_MICROS: u64 = 2_000_000;

impl Store {
    /// Permits clocks to differ by this much.
    pub fn permit_skew(&self, max: Duration) {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        self.max_skew_micros.store(micros, Ordering::Relaxed);
    }

    /// By how much clocks may differ.
    #[must_use]
    pub fn max_skew(&self) -> Duration {
        Duration::from_micros(self.max_skew_micros.load(Ordering::Relaxed))
    }

    /// Decides by this process's clock on PostgreSQL too: for tests that have one clock in their
    /// hands for both engines, and as a negative control. No setting does this.
    #[must_use]
    pub const fn deciding_by_own_clock(mut self) -> Self {
        self.own_clock_decides = true;
        self
    }

    /// The latest time that a correct clock of another replica can show while it is `at` by the one
    /// that decides. On SQLite there is one clock.
    pub(super) fn latest(&self, at: Timestamp) -> Timestamp {
        if self.own_clock_decides {
            return at;
        }
        at.plus(self.max_skew())
    }
}
