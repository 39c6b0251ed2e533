//! Runs the real program on a real Patroni cluster: three PostgreSQL nodes in synchronous mode,
//! three etcd members, HAProxy and PgBouncer. Faults are injected under load. The test takes about
//! ten minutes, so it runs only when it is named:
//!
//! ```sh cargo test --test failover -- --nocapture
//! ```
//!
//! `STACKTOKEN_TEST_FAULTS` sets the number of faults (14 by default). `STACKTOKEN_TEST_PROGRAM`
//! sets the program to test instead of the one built from this tree.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may panic, and use the clock and the environment of the host"
)]

mod etcd;
mod faults;
mod load;
#[path = "../replicas/failover/observer.rs"]
mod observer;
mod patroni;
mod process;
#[path = "../replicas/proxy.rs"]
mod proxy;
mod replica;
mod report;
mod routing;
#[path = "../it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use faults::Fault;
use load::Load;
use patroni::Patroni;
use process::Folder;
use report::{Report, Row};
use tokio::time::sleep;

/// Questions must be answered again within this time after the new primary accepts writes.
const RECOVERY: Duration = Duration::from_secs(3);

fn fault_count() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_FAULTS");
    set.map_or(2 * Fault::ALL.len(), |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_wrong_and_no_change_is_lost_on_a_real_patroni() {
    let folder = Folder::new();
    let mut patroni = Patroni::start(&folder).await;
    let routing = routing::start(&folder, &patroni.nodes);
    let service = replica::Service::start(&folder, &routing).await;
    let load = Load::start(&service, &routing).await;
    sleep(Duration::from_secs(3)).await;
    let mut report = Report::default();
    for at in 0..fault_count() {
        let fault = Fault::ALL[at % Fault::ALL.len()];
        let before = patroni.leader();
        load.begin();
        let begun = Instant::now();
        fault.inject(&mut patroni, &folder, before).await;
        sleep(Duration::from_secs(1)).await;
        patroni.wait_until_whole(&folder).await;
        // A replica that still refuses calls during this time has a longer recovery in the report.
        sleep(RECOVERY + Duration::from_secs(1)).await;
        let row = Row {
            fault,
            moved: (before, patroni.leader()),
            outage: load.outage(begun),
            seen: load.take(),
        };
        println!("{row}");
        report.rows.push(row);
    }
    let written = load.stop().await;
    report.lost = written.lost(&routing).await;
    report.acknowledged = written.counts();
    println!("{report}");
    report.assert_right(RECOVERY);
}
