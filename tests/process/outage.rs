//! Tests an outage of the database. Each cause is logged once, no matter how many calls it refuses,
//! and every refusal is counted in the metrics.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    postgres,
    served::{RunningServer, migrate},
    support::{introspect_request, issue_request},
};

/// Returns how long the database is down.
fn outage_for() -> Duration {
    let set = std::env::var("STACKTOKEN_TEST_OUTAGE_SECONDS").ok();
    Duration::from_secs(set.map_or(6, |text| text.parse().unwrap()))
}

/// How many calls are refused per second, and how many lines an outage may log.
const CALLS: u32 = 20;
const LINES: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_a_line_per_cause_and_counts_every_refusal() {
    let Some(mut postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let url = postgres.url(postgres.port(), "tokens");
    migrate(&url);
    let served = RunningServer::start(&url, |_| {});
    served.serves().await;
    let stack = served.register().await;
    let (owner, service) = (served.user("owner").await, served.service().await);
    let request = issue_request(&stack, "before");
    let issued = owner.tokens.clone().issue(request).await.unwrap();
    let secret = issued.into_inner().secret;
    postgres.stop();
    // The cache answers, correctly, until the lease lapses. Only then are calls refused.
    served.is_ready(false).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;

    let before = (served.log().lines().count(), refusals(&served).await);
    let (mut refused, mut calling) = (0, tokio::task::JoinSet::new());
    let until = Instant::now() + outage_for();
    while Instant::now() < until {
        refused += 1;
        let (mut owner, mut service) = (owner.clone(), service.clone());
        let issue = issue_request(&stack, &format!("refused {refused}"));
        let ask = introspect_request(&stack, &secret, &[]);
        calling.spawn(async move {
            if refused % 2 == 0 {
                owner.tokens.issue(issue).await.map(drop).unwrap_err();
            } else {
                service
                    .introspection
                    .introspect(ask)
                    .await
                    .map(drop)
                    .unwrap_err();
            }
        });
        tokio::time::sleep(Duration::from_secs(1) / CALLS).await;
    }
    while let Some(ended) = calling.join_next().await {
        ended.expect("a call was not refused");
    }
    let log = served.log();
    let lines: Vec<_> = log.lines().skip(before.0).collect();
    println!(
        "{refused} calls refused, {} lines:\n{}",
        lines.len(),
        lines.join("\n")
    );
    assert!(lines.len() <= LINES, "{} lines", lines.len());
    assert_eq!(refusals(&served).await - before.1, refused);

    let causes: Vec<_> = log
        .lines()
        .filter_map(|line| Some(line.split_once("call failed")?.1))
        .filter_map(|line| Some(line.split_once("reason=")?.1))
        .collect();
    assert!(!causes.is_empty(), "no cause is logged: {log}");
    if outage_for() < Duration::from_mins(1) {
        let different: BTreeSet<_> = causes.iter().collect();
        assert_eq!(
            different.len(),
            causes.len(),
            "a cause is logged twice: {causes:?}"
        );
    }
    let suppressed = served
        .counted("stacktoken_log_lines_suppressed_total")
        .await;
    assert!(suppressed > 0);
}

async fn refusals(served: &RunningServer) -> u64 {
    served.counted("stacktoken_errors_total").await
}
