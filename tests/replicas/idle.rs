//! Tests that idle replicas cost the database the same with a short and with a long change log.

use std::{fs, time::Duration};

use tokio::time::sleep;

use crate::{
    cluster::{Cluster, DATABASE},
    plans::fill_changes,
    postgres::Postgres,
};

/// The maximum share of one core that one replica may use on the database server.
const MOST: f64 = 0.02;
/// The maximum ratio of the cost with a long change log to the cost with a short one. If the cost
/// with the short one is below [`FLOOR`], `FLOOR` is used, because a lower value is measurement
/// noise.
const RATIO: f64 = 1.3;
const FLOOR: f64 = 0.01;

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Returns the CPU time that PostgreSQL has used for the replicas' sessions, in seconds.
fn spent(postgres: &Postgres) -> f64 {
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'stacktoken'";
    let pids = postgres.run(DATABASE, pids);
    let of = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    };
    pids.lines().map(of).sum()
}

/// Returns the share of a core that one of the two replicas uses. It is the least of three
/// measurements, because other work on the machine can only add to it.
async fn share(cluster: &Cluster, lasting: Duration) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let before = spent(&cluster.postgres);
        sleep(lasting).await;
        let taken = (spent(&cluster.postgres) - before) / lasting.as_secs_f64() / 2.0;
        best = best.min(taken);
    }
    best
}

/// To measure the figures in docs/reliability.md, STACKTOKEN_TEST_CHANGES sets the number of rows,
/// and STACKTOKEN_TEST_IDLE_SECONDS sets the duration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_replica_costs_as_little_beside_a_long_change_log_as_beside_a_short_one() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let lasting = Duration::from_secs(setting("STACKTOKEN_TEST_IDLE_SECONDS", 2).into());
    let rows = setting("STACKTOKEN_TEST_CHANGES", 200_000);
    fill_changes(&cluster.postgres, 1_000);
    // Wait until the statements are prepared and planned.
    sleep(Duration::from_secs(2)).await;
    let short = share(&cluster, lasting).await;
    fill_changes(&cluster.postgres, rows);
    // Wait until the replicas have polled the log, which now has too many changes to list.
    sleep(Duration::from_secs(2)).await;
    let long = share(&cluster, lasting).await;
    println!(
        "an idle replica takes {:.2} % of a core at 1,000 changes, {:.2} % with {rows} more",
        short * 100.0,
        long * 100.0
    );
    assert!(short <= MOST && long <= MOST, "{short} {long}");
    assert!(long <= short.max(FLOOR) * RATIO, "{short} {long}");
}
