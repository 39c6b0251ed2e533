//! Tests the wall clock of the tests and of the processes that they start. `.ci/ahead` sets it
//! forward. This must affect every process, and must not move the monotonic clock.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use stacktoken::domain::clock::{Clock as _, SystemClock};

use crate::{
    postgres,
    program::{Dev, folder},
    support::issue_request,
};

/// Returns how far the wall clock is set ahead, according to the environment.
fn ahead() -> Duration {
    let days = std::env::var("STACKTOKEN_TEST_DAYS_AHEAD").ok();
    Duration::from_hours(24 * days.map_or(0, |days| days.parse().unwrap()))
}

/// Returns the time that the wall clock should show, which is the kernel's time plus the offset.
/// The kernel's time is read from the modification time of a new file, which `.ci/ahead` does not
/// shift.
fn expected() -> f64 {
    let folder = folder();
    let file = folder.path().join("now");
    fs::write(&file, "").unwrap();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    (written.duration_since(UNIX_EPOCH).unwrap() + ahead()).as_secs_f64()
}

fn assert_close(seconds: f64, expected: f64, what: &str) {
    let apart = seconds - expected;
    assert!(apart.abs() < 60.0, "{what} is {apart:.0} s off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_goes_by_the_wall_clock_that_the_gate_has_set() {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert_close(own.as_secs_f64(), expected(), "the test");
    let folder = folder();
    let dev = Dev::start(folder.path());
    let mut owner = dev.client("owner_jwt").await;
    let request = issue_request(dev.get("stack_api_key"), "dated");
    let issued = owner.tokens.issue(request).await.unwrap().into_inner();
    let issued_at = issued.token.unwrap().issued_at.unwrap().seconds;
    assert_close(issued_at as f64, expected(), "the program");
    let Some(postgres) = postgres::start() else {
        return;
    };
    let now = postgres.run("postgres", "SELECT extract(epoch FROM now())");
    assert_close(now.parse().unwrap(), expected(), "PostgreSQL");
}

#[test]
fn the_steady_clock_is_the_kernels() {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let steady = SystemClock::new().monotonic().as_secs_f64();
    assert_close(steady, uptime, "CLOCK_BOOTTIME");
}
