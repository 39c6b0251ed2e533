//! What a clock is. Its readers take it as an argument, so that a test can set it.

use std::time::Duration;

use crate::timestamp::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// The instant on the wall. While nothing is wrong it never goes back within a process (R8).
    fn now(&self) -> Timestamp;

    /// Time since some fixed point, the time that the host was suspended included; for
    /// measuring how long, never for what date.
    fn monotonic(&self) -> Duration;

    /// The wall clock as it stands, however wrong: for comparing it with another.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// What is wrong with the wall clock; then nothing is decided or answered by it.
    fn fault(&self) -> Option<ClockFault> {
        None
    }

    /// How often the wall clock stepped by more than the permitted skew.
    fn steps(&self) -> u64 {
        0
    }

    /// By how much clocks may differ, and whether there is another to be compared with.
    fn permit(&self, _max_skew: Duration, _compared: bool) {}

    /// Takes note of whether another clock agrees.
    fn compared(&self, _agrees: bool) {}

    /// Whether it has been compared with the other clock, if there is one.
    fn is_compared(&self) -> bool {
        true
    }
}

/// Why nothing can be decided by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFault {
    /// It was set back behind an instant that this process has answered by.
    Behind,
    /// It differs from the database's.
    Differs,
    /// It stepped, and was not compared with the database's since.
    Unconfirmed,
}
