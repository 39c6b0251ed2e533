//! Skips tests that cannot run on this machine because a tool is missing. There is no other way to
//! skip a test.

use std::{
    env,
    ffi::OsStr,
    io::Write as _,
    panic::Location,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Returns `found`. If it is `None`, reports that the current test is skipped.
///
/// # Panics
/// If `found` is `None` and `CI` is set to anything but the empty string.
#[track_caller]
pub fn found_or_skip<T>(found: Option<T>, what: &str) -> Option<T> {
    if found.is_none() {
        skip(what);
    }
    found
}

#[track_caller]
fn skip(missing: &str) {
    let thread = thread::current();
    // libtest names the thread of a test after the test.
    let test = thread.name().unwrap_or("a test");
    assert!(
        !must_run(env::var_os("CI").as_deref()),
        "with CI set {test} must not be skipped; missing: {missing}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let place = Location::caller();
    let line = format!("\nSKIPPED {count}: {test}; missing: {missing} ({place})\n");
    // eprintln! is not suitable, because libtest captures it and prints it only if the test fails.
    // A single write keeps the line in one piece among the output of other threads.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn must_run(ci: Option<&OsStr>) -> bool {
    ci.is_some_and(|value| !value.is_empty())
}
