//! How large a measurement is. With `STACKTOKEN_BENCH_SMALL` set it is one short round, which shows
//! that it works and says nothing about speed.

use std::{process::ExitCode, time::Duration};

/// Whether one short round is measured.
pub fn is_small() -> bool {
    std::env::var_os("STACKTOKEN_BENCH_SMALL").is_some_and(|value| !value.is_empty())
}

pub fn rounds(full: usize) -> usize {
    if is_small() { 1 } else { full }
}

/// A tenth if small.
pub fn count(full: usize) -> usize {
    if is_small() { full / 10 } else { full }
}

/// At most a second if small: h2load counts in whole seconds.
pub fn time(full: Duration) -> Duration {
    let short = Duration::from_secs(1);
    if is_small() { full.min(short) } else { full }
}

/// The end of a measurement that should have found this. If small it only says what it found.
pub fn judge(as_wanted: bool) -> ExitCode {
    if is_small() {
        println!("small: nothing is compared with what is wanted");
    }
    if as_wanted || is_small() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
