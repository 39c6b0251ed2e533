//! Tests that a NOTIFY triggers an immediate poll, and that the change log is also polled at
//! intervals without it. Each is tested where the other one cannot help.

use std::time::{Duration, Instant};

use stacktoken::{app::Safeguards, config::Tuning};
use tokio::time::sleep;

use crate::cluster::{Cluster, DATABASE};

/// With the longest bound, the change log is polled every 15 s. So if three revokes in a row are
/// each applied within a second, these polls cannot be the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_applies_a_revoke_long_before_the_next_poll() {
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
                "round {round}: NOTIFY did not trigger a poll"
            );
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_a_hint_is_polled_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let issued = cluster.issue("unhinted").await;
    let uid = issued.token.unwrap().token_uid;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    let evicted = cluster.b.metric("stacktoken_cache_evictions_total").await;
    // This is what the service executes, but without the NOTIFY.
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
        assert!(
            revoked.elapsed() <= Duration::from_secs(1),
            "the poller did not see the change"
        );
        sleep(Duration::from_millis(2)).await;
    }
    // A poll has evicted the token. A lapsed lease would have caused a lookup in the store instead.
    let since = cluster.b.metric("stacktoken_cache_evictions_total").await;
    assert!(since > evicted, "{evicted} evictions before, {since} after");
}
