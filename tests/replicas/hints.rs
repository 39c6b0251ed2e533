//! A hint makes a change seen at once; without hints the history is read all the same. Each is
//! tried where the other cannot help.

use std::time::{Duration, Instant};

use stacktoken::{app::Safeguards, config::Tuning};
use tokio::time::sleep;

use crate::cluster::{Cluster, DATABASE};

/// With the longest bound the history is read every 15 s: three revokes, one seen after the
/// other within a second each, cannot be the work of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_makes_a_revoke_seen_long_before_the_history_is_read_anyway() {
    let set = |tuning: &mut Tuning| tuning.freshness_bound = Duration::from_secs(60);
    let Some(cluster) = Cluster::start_with(set, Safeguards::default()).await else {
        return;
    };
    for round in 0..3 {
        let issued = cluster.issue(&format!("hinted {round}")).await;
        cluster.b.warm(&cluster.stack, &issued.secret).await;
        let uid = issued.token.unwrap().token_uid;
        cluster.revoke(&uid).await.unwrap();
        let revoked = Instant::now();
        while cluster
            .b
            .introspect(&cluster.stack, &issued.secret)
            .await
            .unwrap()
            .active
        {
            assert!(
                revoked.elapsed() <= Duration::from_secs(1),
                "round {round}: the hint was not followed"
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_a_hint_is_read_from_the_history_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let issued = cluster.issue("unhinted").await;
    let uid = issued.token.unwrap().token_uid;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    let evicted = cluster.b.metric("stacktoken_cache_evictions_total").await;
    // As the service does it, but for the NOTIFY.
    let unhinted = format!(
        "BEGIN; UPDATE tokens SET revoked_at = 1, revoked_by_kind = 'USER', \
         revoked_by_issuer = 'x', revoked_by_subject = 'x' WHERE uid = '{uid}'; \
         INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
         SELECT stack_uid, uid, 'revoked', 1 FROM tokens WHERE uid = '{uid}'; COMMIT"
    );
    cluster.postgres.run(DATABASE, &unhinted);
    let revoked = Instant::now();
    while cluster
        .b
        .introspect(&cluster.stack, &issued.secret)
        .await
        .unwrap()
        .active
    {
        assert!(revoked.elapsed() <= Duration::from_secs(1), "not read");
        sleep(Duration::from_millis(2)).await;
    }
    // It was the feed that noticed, and not a lapsed lease that had the store asked.
    let since = cluster.b.metric("stacktoken_cache_evictions_total").await;
    assert!(since > evicted, "{evicted} evictions before, {since} after");
}
