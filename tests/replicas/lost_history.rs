//! Tests that the whole cache is cleared if the changes since the last poll cannot be listed one by
//! one. Each test revokes a token without a row in the change log, so that nothing else evicts the
//! token.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    cluster::{Cluster, DATABASE},
    faults::{health_at_b, next_event},
    proxy::Link,
};

const BOUND: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(3);

/// Returns a statement that revokes a token without a row in the change log.
fn revoke_without_change_row(uid: &str) -> String {
    format!(
        "UPDATE tokens SET revoked_at = 1, revoked_by_kind = 'USER', revoked_by_issuer = 'x', \
         revoked_by_subject = 'x' WHERE uid = '{uid}'"
    )
}

/// Issues a token and makes B cache it. Returns the token's secret and id.
async fn cached_at_b(cluster: &Cluster, name: &str) -> (String, String) {
    let issued = cluster.issue(name).await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    (issued.secret, issued.token.unwrap().token_uid)
}

/// Waits until B answers that the token is inactive. Asserts that until then B never answers
/// "active" to a call that began later than the bound after `revoked`.
async fn require_evicted(cluster: &Cluster, secret: &str, revoked: Instant) {
    let mended = Instant::now();
    loop {
        let asked = Instant::now();
        match cluster.b.introspect(&cluster.stack, secret).await {
            Ok(answer) if !answer.active => return,
            Ok(_) => assert!(asked <= revoked + BOUND, "active past the bound"),
            Err(_) => assert!(mended.elapsed() <= RECOVERY, "no recovery within 3 s"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_clears_the_cache_of_a_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = cached_at_b(&cluster, "restored").await;
    // This is the state after a restore and `migrate new-epoch`.
    let restored = format!(
        "{}; UPDATE meta SET value = value # 1 WHERE name = 'epoch'",
        revoke_without_change_row(&uid)
    );
    cluster.postgres.run(DATABASE, &restored);
    require_evicted(&cluster, &secret, Instant::now()).await;
}

/// Cuts B's control connection, runs `sql`, restores the connection, and waits until B has polled
/// again. If B were asked before that, it would look into the store and so evict the token itself.
async fn meanwhile(cluster: &Cluster, sql: &str) -> Instant {
    let mut health = health_at_b(cluster, "stacktoken.v1.IntrospectionService").await;
    next_event(&mut health, ServingStatus::Serving).await;
    cluster.b.control_link.set(Link::Cut);
    sleep(Duration::from_millis(100)).await;
    cluster.postgres.run(DATABASE, sql);
    let revoked = Instant::now();
    next_event(&mut health, ServingStatus::NotServing).await;
    cluster.b.control_link.set(Link::Up);
    next_event(&mut health, ServingStatus::Serving).await;
    revoked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_unread_changes_clears_the_cache() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = cached_at_b(&cluster, "purged").await;
    let purge = format!(
        "BEGIN; {}; DELETE FROM changes; UPDATE meta \
         SET value = pg_current_xact_id()::text::bigint WHERE name = 'purged'; COMMIT",
        revoke_without_change_row(&uid)
    );
    let revoked = meanwhile(&cluster, &purge).await;
    require_evicted(&cluster, &secret, revoked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_changes_clear_the_cache_of_a_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = cached_at_b(&cluster, "flooded").await;
    let flood = format!(
        "BEGIN; {}; INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
         SELECT stack_uid, gen_random_uuid(), 'revoked', 1 \
         FROM tokens, generate_series(1, 10001) WHERE uid = '{uid}'; COMMIT",
        revoke_without_change_row(&uid)
    );
    let revoked = meanwhile(&cluster, &flood).await;
    require_evicted(&cluster, &secret, revoked).await;
}
