//! Checks whether the wall clock can be trusted. The clock is compared with the database's clock at
//! every heartbeat, and with `CLOCK_BOOTTIME` at every reading (R8).

use super::{App, Error};
use crate::domain::{clock::ClockFault, comparison::Comparison, timestamp::Timestamp};

impl App {
    /// Returns the current time, at which an answer is evaluated.
    pub(super) fn instant(&self) -> Result<Timestamp, Error> {
        let now = self.clock.now();
        match self.clock.fault() {
            None => Ok(now),
            Some(_) => Err(Error::ClockSkew),
        }
    }

    /// Compares this process's clock with the database's. The uncertainty that comes from the round
    /// trip counts in favor of the clock, so that a slow heartbeat raises no alarm.
    pub(super) fn compare(&self, comparison: &Comparison, theirs: Timestamp) {
        let difference = comparison.end(theirs, self.clock.as_ref());
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a difference")]
        self.metrics.clock_offset.set(difference.ahead as f64 / 1e6);
        self.clock
            .compared(!difference.exceeds(self.store.max_skew()));
        self.watch_clock();
    }

    /// Reads the clock, and logs and counts its steps and faults. Returns the current fault, if
    /// any.
    pub fn watch_clock(&self) -> Option<ClockFault> {
        self.clock.now();
        let fault = self.clock.fault();
        let steps = self.clock.steps();
        let counted = self.metrics.clock_steps.get();
        if steps > counted {
            self.metrics.clock_steps.inc_by(steps - counted);
            tracing::warn!(steps, "the wall clock was set while this process runs");
        }
        let wrong = i64::from(fault.is_some());
        if self.metrics.clock_wrong.set(wrong) != wrong {
            let ahead = self.metrics.clock_offset.get();
            if let Some(fault) = fault {
                tracing::error!(
                    ?fault,
                    seconds_ahead_of_the_database = ahead,
                    "CLOCK_SKEW: the clock is wrong; refusing calls that depend on it"
                );
            } else {
                tracing::info!("the clock is right again");
            }
        }
        fault
    }
}
