//! Tests how soon a revoke at one replica takes effect at the other.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;

/// Returns how many revokes to make. The default is 200; set STACKTOKEN_TEST_REVOKES to measure the
/// figures in docs/reliability.md.
fn revokes() -> usize {
    std::env::var("STACKTOKEN_TEST_REVOKES").map_or(200, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_is_seen_on_the_other_replica_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.allow_tokens(1000).await;
    let mut seen_after = Vec::new();
    for at in 0..revokes() {
        let issued = cluster.issue(&format!("token {at}")).await;
        cluster.b.warm(&cluster.stack, &issued.secret).await;
        let uid = issued.token.unwrap().token_uid;
        let revoked = cluster.revoke(&uid).await.unwrap();
        let acknowledged = Instant::now();
        if at % 2 == 0 {
            // If the call names the revision of the revoke, not even the first answer may be stale.
            let answer = cluster
                .b
                .introspect_since(&cluster.stack, &issued.secret, &revoked.revision)
                .await;
            assert!(!answer.unwrap().active, "active despite min_revision");
        }
        while cluster
            .b
            .introspect(&cluster.stack, &issued.secret)
            .await
            .unwrap()
            .active
        {
            assert!(
                acknowledged.elapsed() <= Duration::from_secs(1),
                "active past the bound"
            );
        }
        seen_after.push(acknowledged.elapsed());
    }
    seen_after.sort();
    let percentile = |p: usize| seen_after[(seen_after.len() - 1) * p / 100];
    println!(
        "revoke seen on the other replica, {} revokes: median {:?}, p99 {:?}, max {:?}",
        seen_after.len(),
        percentile(50),
        percentile(99),
        percentile(100)
    );
}
