//! Tests a table that is locked for a long time, as `VACUUM FULL` locks it. Cached tokens are still
//! answered, and the replicas do not use up the server's sessions.

use std::time::{Duration, Instant};

use stacktoken::{
    app::Safeguards,
    config::Tuning,
    domain::{entropy::OsEntropy, secret::Secret},
};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    postgres::Postgres,
    support::issue_request,
    trusted::issue_soon,
};

/// How long the table stays locked.
const LOCKED_FOR: Duration = Duration::from_secs(16);
/// How many callers continuously ask each replica about tokens that it has not cached.
const ASKING: usize = 8;

fn sessions(postgres: &Postgres) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stacktoken'";
    postgres.run(DATABASE, sql).trim().parse().unwrap()
}

async fn ask_for_unknown_ones(replica: &Replica, stack: &str, until: Instant) {
    while Instant::now() < until {
        let unknown = Secret::generate(&OsEntropy).unwrap().expose().to_owned();
        // While the table is locked, the call is refused within the bound.
        let _ = replica.introspect(stack, &unknown).await;
        sleep(Duration::from_millis(10)).await;
    }
}

/// Asks about a cached token until the deadline. Returns how many calls were made, and how many of
/// them were refused.
async fn ask_for_a_known_one(
    replica: &Replica,
    (stack, secret): (&str, &str),
    until: Instant,
) -> (usize, usize) {
    let (mut asked, mut refused) = (0, 0);
    while Instant::now() < until {
        asked += 1;
        refused += usize::from(replica.introspect(stack, secret).await.is_err());
        sleep(Duration::from_millis(20)).await;
    }
    (asked, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_locked_for_long_costs_few_sessions() {
    // This bound is so long that no lease lapses, even on a slow machine.
    let patient = |tuning: &mut Tuning| tuning.freshness_bound = Duration::from_secs(2);
    let Some(cluster) = Cluster::start_with(patient, Safeguards::default()).await else {
        return;
    };
    let (a, b, stack) = (&cluster.a, &cluster.b, cluster.stack.as_str());
    let secret = cluster.issue("remembered").await.secret;
    for replica in [a, b] {
        replica.warm(stack, &secret).await;
        replica.connect(stack).await;
    }
    let before = sessions(&cluster.postgres);
    let lock = "LOCK TABLE token_secrets IN ACCESS EXCLUSIVE MODE";
    let held = cluster.postgres.hold(DATABASE, lock);
    let until = Instant::now() + LOCKED_FOR;
    let asking = async |replica| {
        let asking = (0..ASKING).map(|_| ask_for_unknown_ones(replica, stack, until));
        futures_util::future::join_all(asking).await;
    };
    let counting = async {
        let mut most = 0;
        while Instant::now() < until {
            most = most.max(sessions(&cluster.postgres));
            sleep(Duration::from_millis(500)).await;
        }
        most
    };
    let known = (stack, secret.as_str());
    let (most, at_a, at_b, (), ()) = tokio::join!(
        counting,
        ask_for_a_known_one(a, known, until),
        ask_for_a_known_one(b, known, until),
        asking(a),
        asking(b),
    );
    held.commit();
    println!("sessions {before} -> {most}; calls and refusals: {at_a:?} {at_b:?}");
    let refused = at_a.1 + at_b.1;
    assert_eq!(refused, 0, "a cached token was refused");
    // Each replica renews its connections after 2, 4, 6 and 10 s. If the pause did not grow, it
    // would renew them every 2 s. Each renewal leaves behind a session in which the lookup of a
    // caller still waits.
    let at_most = before + 2 * 5 * ASKING;
    assert!(most <= at_most, "{most} sessions of at most {at_most}");
    // When the lock is released, tokens that are not cached are answered again.
    let live = issue_soon(&cluster, issue_request(stack, "afterwards"))
        .await
        .secret;
    a.warm(stack, &live).await;
    b.warm(stack, &live).await;
}
