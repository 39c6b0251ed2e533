//! Tests that cannot run on this machine for want of a tool. The only way to skip one.

use std::{
    env,
    ffi::OsStr,
    io::Write as _,
    panic::Location,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Passes on what was found. If it is missing, reports that the current test is skipped.
///
/// # Panics
/// If it is missing and `CI` is set to anything but the empty string.
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
    // libtest names a test's thread after the test.
    let test = thread.name().unwrap_or("a test");
    assert!(
        !must_run(env::var_os("CI").as_deref()),
        "with CI set {test} must not be skipped for want of {missing}"
    );
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let place = Location::caller();
    let line = format!("\nSKIPPED {count}: {test}, for want of {missing} ({place})\n");
    // Not eprintln!, which libtest captures and shows only if the test fails. In one write, so that
    // no other thread's line comes between.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn must_run(ci: Option<&OsStr>) -> bool {
    ci.is_some_and(|value| !value.is_empty())
}
