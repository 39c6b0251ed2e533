//! Where the history cannot be told one by one, everything remembered is forgotten. Each test
//! revokes a token in a way that B can never read as a change, so that nothing else evicts it.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    cluster::{Cluster, DATABASE},
    faults::{health_at_b, hear},
    proxy::Link,
};

const BOUND: Duration = Duration::from_secs(1);
const RECOVERY: Duration = Duration::from_secs(3);

/// The statement that revokes a token and leaves no row in the history.
fn revoke_unseen(uid: &str) -> String {
    format!(
        "UPDATE tokens SET revoked_at = 1, revoked_by_kind = 'USER', revoked_by_issuer = 'x', \
         revoked_by_subject = 'x' WHERE uid = '{uid}'"
    )
}

/// A token that B remembers as live: its secret and uid.
async fn remembered_at_b(cluster: &Cluster, name: &str) -> (String, String) {
    let issued = cluster.issue(name).await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    (issued.secret, issued.token.unwrap().token_uid)
}

/// Waits until B answers, and requires that it never says active later than the bound after
/// `revoked`.
async fn require_forgotten(cluster: &Cluster, secret: &str, revoked: Instant) {
    let mended = Instant::now();
    loop {
        let asked = Instant::now();
        match cluster.b.introspect(&cluster.stack, secret).await {
            Ok(answer) if !answer.active => return,
            Ok(_) => assert!(asked <= revoked + BOUND, "still remembered as live"),
            Err(_) => assert!(mended.elapsed() <= RECOVERY, "no recovery"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_empties_the_memory_of_a_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = remembered_at_b(&cluster, "restored").await;
    // As after a restore and `migrate new-epoch`.
    let restored = format!(
        "{}; UPDATE meta SET value = value # 1 WHERE name = 'epoch'",
        revoke_unseen(&uid)
    );
    cluster.postgres.run(DATABASE, &restored);
    require_forgotten(&cluster, &secret, Instant::now()).await;
}

/// Cuts B off from the feed, has `sql` run, mends the link and waits until B has read the history
/// again: a question before that would be answered from the store, and evict by itself.
async fn meanwhile(cluster: &Cluster, sql: &str) -> Instant {
    let mut health = health_at_b(cluster, "stacktoken.v1.IntrospectionService").await;
    hear(&mut health, ServingStatus::Serving).await;
    cluster.b.control_link.set(Link::Cut);
    sleep(Duration::from_millis(100)).await;
    cluster.postgres.run(DATABASE, sql);
    let revoked = Instant::now();
    hear(&mut health, ServingStatus::NotServing).await;
    cluster.b.control_link.set(Link::Up);
    hear(&mut health, ServingStatus::Serving).await;
    revoked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_part_of_the_history_empties_the_memory_of_a_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = remembered_at_b(&cluster, "purged").await;
    let purge = format!(
        "BEGIN; {}; DELETE FROM changes; UPDATE meta \
         SET value = pg_current_xact_id()::text::bigint WHERE name = 'purged'; COMMIT",
        revoke_unseen(&uid)
    );
    let revoked = meanwhile(&cluster, &purge).await;
    require_forgotten(&cluster, &secret, revoked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_are_told_empty_the_memory_of_a_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, uid) = remembered_at_b(&cluster, "flooded").await;
    let flood = format!(
        "BEGIN; {}; INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
         SELECT stack_uid, gen_random_uuid(), 'revoked', 1 \
         FROM tokens, generate_series(1, 10001) WHERE uid = '{uid}'; COMMIT",
        revoke_unseen(&uid)
    );
    let revoked = meanwhile(&cluster, &flood).await;
    require_forgotten(&cluster, &secret, revoked).await;
}
