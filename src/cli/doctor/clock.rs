//! The host's clock: against the database's clock, against the time of the last heartbeat, and
//! against `CLOCK_BOOTTIME`, which nobody can set.

use std::{sync::Arc, time::Duration};

use super::{codes::Code, finding::Findings};
use crate::{
    config::Tuning,
    domain::{
        clock::{Clock as _, SystemClock},
        timestamp::Timestamp,
    },
    store::{Error, Store},
};

const FIX: &str = "Synchronize the clocks: `timedatectl set-ntp true` on this host and on the host of \
                   the database, then compare `chronyc tracking`";

/// Takes the first reading of the clock.
pub fn start(tuning: &Tuning) -> Arc<SystemClock> {
    let clock = SystemClock::new();
    clock.permit(tuning.max_clock_skew, false);
    clock.now();
    Arc::new(clock)
}

/// Takes the last reading, and reports whether the clock was set since the first one.
pub fn finish(clock: &SystemClock, findings: &mut Findings) {
    clock.now();
    if clock.steps() > 0 || clock.fault().is_some() {
        let problem = "the wall clock was set by more than --max-clock-skew during this check";
        let fix = "Let the clock be slewed and not stepped (chrony: no `makestep` after the start), \
                   and look for a second program that sets it: `timedatectl status`";
        findings.add(Code::ClockStepped, problem, fix);
    }
}

/// Compares the clock with that of the database, or with the last heartbeat in its file.
pub async fn compare(
    store: &Store,
    max_skew: Duration,
    (clock, findings): (&SystemClock, &mut Findings),
) -> Result<(), Error> {
    if let Some(difference) = store.clock_difference().await?
        && difference.exceeds(max_skew)
    {
        let direction = if difference.ahead > 0 {
            "ahead of"
        } else {
            "behind"
        };
        let problem = format!(
            "this host's clock is {:.1} s {direction} the database's clock, and {max_skew:?} are \
             permitted (--max-clock-skew): `serve` refuses to answer",
            difference.certain().as_secs_f64()
        );
        findings.add(Code::ClockDatabase, problem, FIX);
    }
    if store.has_other_writers() {
        return Ok(());
    }
    let beat = store.last_heartbeat().await?.unwrap_or(Timestamp::EPOCH);
    let behind = beat.since(clock.wall());
    if behind > max_skew {
        let problem = format!(
            "this host's clock is {:.1} s behind the last heartbeat in the file: tokens that have \
             expired could be shown as active",
            behind.as_secs_f64()
        );
        findings.add(Code::ClockBehind, problem, FIX);
    }
    Ok(())
}
