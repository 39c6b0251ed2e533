//! Skips tests that cannot run on this machine because a tool is missing. Tests must not be skipped
//! in any other way.

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
/// # Panics If `found` is `None` and the variable `CI` is set and not empty.
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
    // libtest gives the thread of a test the name of the test.
    let test = thread.name().unwrap_or("a test");
    assert!(
        !must_run(env::var_os("CI").as_deref()),
        "with CI set {test} must not be skipped; missing: {missing}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let place = Location::caller();
    let line = format!("\nSKIPPED {count}: {test}; missing: {missing} ({place})\n");
    // `eprintln!` is not suitable, because libtest captures its output and prints it only if the
    // test fails. The line is written at once, so that the output of other threads does not split
    // it.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn must_run(ci: Option<&OsStr>) -> bool {
    ci.is_some_and(|value| !value.is_empty())
}
