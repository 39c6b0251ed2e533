//! The host's clock. No other module reads a clock, so that tests can pass their own.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::timestamp::Timestamp;

pub use stacktoken_core::clock::{Clock, ClockFault, ClockReading};

/// State of a clock for which there is no other clock to compare it with.
const ALONE: u8 = 0;
/// State of a clock that has not been compared since startup. The service does not answer requests
/// before the first comparison.
const AWAITED: u8 = 1;
const AGREES: u8 = 2;
const DIFFERS: u8 = 3;
const UNCONFIRMED: u8 = 4;

/// The value of `offset` before the first reading.
const NEVER: i64 = i64::MIN;
/// The longest time, in microseconds, that may pass between the readings of the two clocks. After a
/// longer time, their difference is not meaningful.
const READ_WITHIN: i64 = 20_000;

/// The host's clock. All fields with times are in microseconds.
#[derive(Debug)]
pub struct SystemClock {
    /// The latest time that may have been used in an answer.
    latest: AtomicI64,
    /// The wall clock minus `CLOCK_BOOTTIME` at the last reading. Because `CLOCK_BOOTTIME` cannot
    /// be set, a change of this difference shows that the wall clock was set.
    offset: AtomicI64,
    max_skew: AtomicI64,
    other: AtomicU8,
    behind: AtomicBool,
    steps: AtomicU64,
}

impl SystemClock {
    /// Creates a clock that is not compared with another clock.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            latest: AtomicI64::new(i64::MIN),
            offset: AtomicI64::new(NEVER),
            max_skew: AtomicI64::new(2_000_000),
            other: AtomicU8::new(ALONE),
            behind: AtomicBool::new(false),
            steps: AtomicU64::new(0),
        }
    }

    /// Returns the time to use, computed from a reading of the wall clock and a reading of
    /// `CLOCK_BOOTTIME`.
    fn take(&self, wall: i64, boot: i64) -> i64 {
        let before = self.offset.swap(wall - boot, Ordering::Relaxed);
        let max_skew = self.max_skew.load(Ordering::Relaxed);
        if before != NEVER && (wall - boot - before).abs() > max_skew {
            self.reread(before, max_skew);
        }
        // While the clock is not trusted, no request is answered with it. So its readings do not
        // raise `latest`, and the clock can be used again as soon as it is corrected.
        let trusted = matches!(self.other.load(Ordering::Acquire), ALONE | AGREES);
        let latest = if trusted {
            self.latest.fetch_max(wall, Ordering::Relaxed).max(wall)
        } else {
            self.latest.load(Ordering::Relaxed)
        };
        let behind = latest.saturating_sub(wall) > max_skew;
        if self.behind.load(Ordering::Relaxed) != behind {
            self.behind.store(behind, Ordering::Release);
        }
        if trusted { latest } else { wall }
    }

    /// Reads both clocks again, as close together as possible. If the wall clock was set, their
    /// difference is still changed. If the process was only suspended between the two earlier
    /// readings, it is not.
    fn reread(&self, before: i64, max_skew: i64) {
        let close = (0..10).find_map(|_| {
            let (first, wall, last) = (boot_micros(), wall_micros(), boot_micros());
            (last - first <= READ_WITHIN).then_some(wall - first)
        });
        let Some(offset) = close else {
            return;
        };
        self.offset.store(offset, Ordering::Relaxed);
        if (offset - before).abs() > max_skew {
            self.steps.fetch_add(1, Ordering::Relaxed);
            // If the comparison found a difference or has not happened yet, `other` stays as it is.
            let _ = self.other.compare_exchange(
                AGREES,
                UNCONFIRMED,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.read().now
    }

    fn monotonic(&self) -> Duration {
        boot()
    }

    fn read(&self) -> ClockReading {
        let (wall, monotonic) = (wall_micros(), boot());
        let boot = i64::try_from(monotonic.as_micros()).unwrap_or(i64::MAX);
        ClockReading {
            now: timestamp(self.take(wall, boot)),
            monotonic,
        }
    }

    fn wall(&self) -> Timestamp {
        timestamp(wall_micros())
    }

    fn fault(&self) -> Option<ClockFault> {
        if self.behind.load(Ordering::Acquire) {
            return Some(ClockFault::Behind);
        }
        match self.other.load(Ordering::Acquire) {
            DIFFERS => Some(ClockFault::Differs),
            UNCONFIRMED => Some(ClockFault::Unconfirmed),
            _ => None,
        }
    }

    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn permit(&self, max_skew: Duration, compared: bool) {
        let micros = i64::try_from(max_skew.as_micros()).unwrap_or(i64::MAX);
        self.max_skew.store(micros, Ordering::Relaxed);
        let other = if compared { AWAITED } else { ALONE };
        self.other.store(other, Ordering::Release);
        if compared {
            self.latest.store(i64::MIN, Ordering::Relaxed);
        }
    }

    fn compared(&self, agrees: bool) {
        let other = if agrees { AGREES } else { DIFFERS };
        self.other.store(other, Ordering::Release);
    }

    fn is_compared(&self) -> bool {
        self.other.load(Ordering::Acquire) != AWAITED
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else asks"
)]
fn wall_micros() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX / 2)
}

/// Returns the time since the host started. Uses `CLOCK_BOOTTIME`, because `CLOCK_MONOTONIC` stops
/// while the host is suspended, and a lease measured with it would outlive its bound.
fn boot() -> Duration {
    let read = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(read.tv_nsec).unwrap_or_default())
}

fn boot_micros() -> i64 {
    i64::try_from(boot().as_micros()).unwrap_or(i64::MAX)
}

/// Converts microseconds to a timestamp. A time outside the years 0001 to 9999 becomes the Unix
/// epoch.
fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Returns a clock. The test passes its readings to `take`. If a reading looks like a step,
    /// `take` reads the real clocks of the host.
    fn clock(compared: bool) -> SystemClock {
        let clock = SystemClock::new();
        clock.permit(Duration::from_secs(2), compared);
        clock
    }

    #[test]
    fn a_clock_alone_that_is_set_back_refuses_until_it_has_caught_up() {
        let clock = clock(false);
        assert_eq!(clock.take(100 * SECOND, 0), 100 * SECOND);
        // After a step back within the permitted skew, the time stays the same until the clock
        // catches up.
        assert_eq!(clock.take(99 * SECOND, 0), 100 * SECOND);
        assert_eq!(clock.fault(), None);
        clock.take(97 * SECOND, 0);
        assert_eq!(clock.fault(), Some(ClockFault::Behind));
        clock.take(98 * SECOND, SECOND);
        assert_eq!(clock.fault(), None);
    }

    #[test]
    fn a_clock_that_never_agreed_serves_as_soon_as_it_does() {
        let clock = clock(true);
        clock.take(7_300 * SECOND, 0);
        assert!(!clock.is_compared());
        clock.compared(false);
        assert_eq!(clock.fault(), Some(ClockFault::Differs));
        assert!(clock.is_compared());
        assert_eq!(clock.take(7_301 * SECOND, SECOND), 7_301 * SECOND);
        // The wall clock is set back by two hours.
        clock.take(102 * SECOND, 2 * SECOND);
        clock.compared(true);
        assert_eq!(clock.take(103 * SECOND, 3 * SECOND), 103 * SECOND);
        assert_eq!(clock.fault(), None);
    }

    #[test]
    fn a_clock_that_agreed_and_is_set_back_refuses_also_where_the_other_agrees_again() {
        let clock = clock(true);
        clock.compared(true);
        clock.take(7_300 * SECOND, 0);
        clock.compared(true);
        clock.take(100 * SECOND, 0);
        assert_eq!(clock.fault(), Some(ClockFault::Behind));
    }

    #[test]
    fn a_reading_that_was_interrupted_is_no_step() {
        let clock = clock(true);
        clock.compared(true);
        clock.now();
        // The clocks of the host are read again. Their difference has not changed, so this is not a
        // step.
        clock.take(wall_micros() - 10 * SECOND, boot_micros());
        assert_eq!(
            (clock.steps(), clock.fault()),
            (0, Some(ClockFault::Behind))
        );
        clock.now();
        assert_eq!((clock.steps(), clock.fault()), (0, None));
    }
}
