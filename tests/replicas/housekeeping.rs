//! Tests concurrent housekeeping on PostgreSQL. Each row is deleted once, no run waits for another
//! session, and the change log is purged only from its start.

use std::{sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use stacktoken::{
    app::Safeguards,
    domain::{
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
    },
    store::{Batch, Location, Next, PoolSize, Retention, Store},
};

use crate::{
    cluster::{Cluster, DATABASE},
    postgres::{self, Postgres},
    support::{database::eventually, issue_request, requests::revoke_request},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn store(postgres: &Postgres) -> Store {
    let location: Location = postgres.url(postgres.port(), DATABASE).parse().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let size = PoolSize { connections: 4 };
    let store = Store::open(&location, size, (clock, entropy))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}

/// Returns a database with the schema, or `None` if PostgreSQL is not installed.
async fn migrated_database() -> Option<(Postgres, Store)> {
    let postgres = postgres::start()?;
    postgres.create(DATABASE);
    let store = store(&postgres).await;
    Some((postgres, store))
}

fn retention(days: u32) -> Retention {
    Retention {
        now: SystemClock::new().now(),
        kept_for: DAY * days,
    }
}

/// Inserts stacks, and tokens that each have a secret and two usage rows. The tokens up to the
/// number `dead` were revoked 100 days ago, those up to `young` 80 days ago, and the others are
/// live.
fn fill(postgres: &Postgres, stacks: u32, [dead, young, all]: [u32; 3]) {
    let uid = |of: &str| format!("lpad(to_hex({of}), 32, '0')::uuid");
    let ago = |days: u32| format!("(extract(epoch FROM now()) - 86400 * {days})::bigint * 1000000");
    let sql = format!(
        "INSERT INTO stacks (uid, key, name, organization_uid, token_limit, registered_at) \
         SELECT {stack}, 'blt' || lpad(to_hex(n), 16, '0'), 'Filled', 'o', 1000, 0 \
         FROM generate_series(1, {stacks}) n; \
         INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
         secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, \
         revoked_at, revoke_reason) SELECT {token}, {its}, 'n' || n, '', '{{\"access\":\"READ\"}}', \
         1, 'abcd', 0, 'USER', 'i', 's', CASE WHEN n <= {dead} THEN {long_ago} \
         WHEN n <= {young} THEN {of_late} END, '' FROM generate_series(1, {all}) n; \
         INSERT INTO token_secrets (digest, token_uid, generation, made_at) \
         SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), {token}, 1, 0 \
         FROM generate_series(1, {all}) n; \
         INSERT INTO requests (stack_uid, caller_issuer, caller_subject, rpc, request_id, \
         content, token_uid, generation, token_state, first_seen_at) SELECT {its}, 'i', 's', 'r', \
         'q' || n, '\\x00', {token}, 1, '\\x00', 0 FROM generate_series(1, {all}) n; \
         INSERT INTO token_usage SELECT {token}, 'i', service, 1 \
         FROM generate_series(1, {all}) n, unnest(ARRAY['a', 'b']) service; ANALYZE",
        stack = uid("n"),
        token = uid("n"),
        its = uid(&format!("n % {stacks} + 1")),
        long_ago = ago(100),
        of_late = ago(80),
    );
    postgres.run(DATABASE, &sql);
}

fn count(postgres: &Postgres, what: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {what}");
    postgres.run(DATABASE, &sql).parse().unwrap()
}

fn deleted(batch: &Batch, of: &str) -> u64 {
    let rows = batch.rows.iter().filter(|(table, _)| *table == of);
    rows.map(|(_, rows)| *rows).sum()
}

/// Returns how many rows of a table both replicas together have counted as purged.
async fn purged(cluster: &Cluster, table: &str) -> f64 {
    let name = format!("stacktoken_purged_rows_total{{table=\"{table}\"}}");
    cluster.a.metric(&name).await + cluster.b.metric(&name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_delete_each_row_once_beside_issues_and_revokes() {
    let often = |tuning: &mut stacktoken::config::Tuning| {
        tuning.keeping.housekeeping_every = Duration::from_millis(10);
    };
    let Some(cluster) = Cluster::start_with(often, Safeguards::default()).await else {
        return;
    };
    cluster.allow_tokens(1000).await;
    fill(&cluster.postgres, 20, [6000, 6500, 7000]);
    // The stack that the test changes has dead tokens too.
    let theirs = format!(
        "UPDATE tokens SET stack_uid = (SELECT uid FROM stacks WHERE key = '{}') \
         WHERE name LIKE '%7'",
        cluster.stack
    );
    cluster.postgres.run(DATABASE, &theirs);
    let changes = (0..4).map(|at| {
        let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
        let (mut owner, stack) = (replica.owner.clone(), cluster.stack.clone());
        async move {
            for round in 0..25 {
                let request = issue_request(&stack, &format!("{at} {round}"));
                let issued = owner.tokens.issue(request).await.unwrap().into_inner();
                let uid = issued.token.unwrap().token_uid;
                let revoke = revoke_request(&stack, &uid, "");
                owner.tokens.revoke(revoke).await.unwrap();
            }
        }
    });
    let gone = eventually("all old rows are deleted", async || {
        (count(&cluster.postgres, "tokens WHERE name LIKE 'n%'") == 1000).then_some(())
    });
    join(join_all(changes), gone).await;
    eventually("all deleted rows are counted", async || {
        (purged(&cluster, "tokens").await >= 6000.0).then_some(())
    })
    .await;
    assert_eq!(purged(&cluster, "tokens").await, 6000.0);
    assert_eq!(purged(&cluster, "token_secrets").await, 6000.0);
    assert_eq!(count(&cluster.postgres, "tokens"), 1000 + 100);
    assert_eq!(count(&cluster.postgres, "token_secrets"), 1000 + 100);
    for replica in [&cluster.a, &cluster.b] {
        let failed = replica.metric("stacktoken_housekeeping_failures_total");
        assert_eq!(failed.await, 0.0);
    }
    let log = cluster.postgres.log();
    assert!(!log.contains("deadlock"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_purge_lock_deletes_nothing() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    fill(&postgres, 2, [10, 10, 10]);
    // The number is "stackhou" in ASCII, which identifies the lock for purges.
    let lock = format!(
        "SELECT pg_advisory_xact_lock({})",
        0x7374_6163_6b68_6f75_i64
    );
    let held = postgres.hold(
        DATABASE,
        &format!(
            "DO $$ BEGIN PERFORM 1; {}; END $$",
            lock.replace("SELECT", "PERFORM")
        ),
    );
    for batch in [
        store.purge_tokens(retention(90)).await,
        store.purge_usage(retention(90), None).await,
        store.purge_audit(retention(400)).await,
        store.purge_changes(retention(7)).await,
    ] {
        assert_eq!(batch.unwrap().next, Next::Busy);
    }
    assert_eq!(count(&postgres, "tokens"), 10);
    held.commit();
    let batch = store.purge_tokens(retention(90)).await.unwrap();
    assert_eq!((deleted(&batch, "tokens"), batch.next), (10, Next::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_stacks_and_uses_are_skipped_and_purged_later() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    fill(&postgres, 2, [10, 10, 10]);
    let stack =
        "SELECT key FROM stacks WHERE uid = (SELECT stack_uid FROM tokens WHERE name = 'n1')";
    let key = postgres.run(DATABASE, stack);
    let change = format!("UPDATE stacks SET name = 'Held' WHERE key = '{key}'");
    let change = postgres.hold(DATABASE, &change);
    let use_of = "UPDATE token_usage SET last_used_at = 3 WHERE service_subject = 'a' \
                  AND token_uid = (SELECT uid FROM tokens WHERE name = 'n1')";
    let use_of = postgres.hold(DATABASE, use_of);
    let wait = Duration::from_secs(2);
    let batch = tokio::time::timeout(wait, store.purge_tokens(retention(90))).await;
    let batch = batch
        .expect("the purge waits for no other session")
        .unwrap();
    assert_eq!((deleted(&batch, "tokens"), batch.next), (5, Next::Done));
    let older = "UPDATE token_usage SET last_used_at = 0 WHERE service_subject = 'a' \
                 AND token_uid <> (SELECT uid FROM tokens WHERE name = 'n1')";
    postgres.run(DATABASE, older);
    let batch = tokio::time::timeout(wait, store.purge_usage(retention(90), None)).await;
    let batch = batch
        .expect("the purge waits for no other session")
        .unwrap();
    assert_eq!(deleted(&batch, "token_usage"), 4);
    change.commit();
    use_of.commit();
    let batch = store.purge_tokens(retention(90)).await.unwrap();
    assert_eq!(deleted(&batch, "tokens"), 5);
    assert_eq!(count(&postgres, "token_usage"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ahead_of_the_databases_deletes_nothing() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    fill(&postgres, 2, [0, 10, 10]);
    let ahead = Retention {
        now: SystemClock::new().now().plus(DAY * 1000),
        kept_for: DAY * 90,
    };
    let batch = store.purge_tokens(ahead).await.unwrap();
    assert_eq!((deleted(&batch, "tokens"), batch.next), (0, Next::Done));
    assert_eq!(count(&postgres, "tokens"), 10);
}

const OLD: &str = "INSERT INTO changes (stack_uid, kind, changed_at) \
                   SELECT '00000000-0000-0000-0000-000000000001', 'issued', 1 FROM generate_series(1, ";

fn purged_up_to(postgres: &Postgres) -> i64 {
    let sql = "SELECT value FROM meta WHERE name = 'purged'";
    postgres.run(DATABASE, sql).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_change_log_is_deleted_up_to_the_oldest_open_transaction_and_never_wholly() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    let position = |which: &str| -> i64 {
        let sql = format!("SELECT {which}(xid::text::bigint) FROM changes");
        postgres.run(DATABASE, &sql).parse().unwrap()
    };
    postgres.run(DATABASE, &format!("{OLD}3)"));
    let (first, number) = (position("max"), count(&postgres, "changes"));
    assert_eq!(number, 3);
    // This transaction began before the next rows and is still open, so the rows after it must
    // stay.
    let held = postgres.hold(DATABASE, &format!("{OLD}2)"));
    for _ in 0..3 {
        postgres.run(DATABASE, &format!("{OLD}4)"));
    }
    let last = position("max");
    let batch = store.purge_changes(retention(7)).await.unwrap();
    assert_eq!((deleted(&batch, "changes"), batch.next), (2, Next::Done));
    assert_eq!((position("min"), purged_up_to(&postgres)), (first, first));
    held.commit();
    assert_eq!(count(&postgres, "changes"), 1 + 2 + 12);
    let batch = store.purge_changes(retention(7)).await.unwrap();
    assert_eq!(deleted(&batch, "changes"), 14);
    // One row of the last transaction remains, because this row holds the position of the change
    // log.
    assert_eq!((position("min"), purged_up_to(&postgres)), (last, last));
    let batch = store.purge_changes(retention(7)).await.unwrap();
    assert_eq!(deleted(&batch, "changes"), 0);
    assert_eq!(count(&postgres, "changes"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_change_log_is_purged_in_batches_up_to_the_first_young_row() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    postgres.run(DATABASE, &format!("{OLD}700)"));
    postgres.run(DATABASE, &format!("{OLD}600)"));
    let young = "UPDATE changes SET changed_at = (extract(epoch FROM now()))::bigint * 1000000 \
                 WHERE id = 1250";
    postgres.run(DATABASE, young);
    let mut sizes = Vec::new();
    loop {
        let batch = store.purge_changes(retention(7)).await.unwrap();
        sizes.push(deleted(&batch, "changes"));
        let left = "SELECT min(id) - 1 FROM changes";
        let gone: u64 = postgres.run(DATABASE, left).parse().unwrap();
        assert_eq!(gone, sizes.iter().sum::<u64>());
        if batch.next == Next::Done {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 249]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_log_from_another_database_restarts_with_the_epoch() {
    let Some((postgres, store)) = migrated_database().await else {
        return;
    };
    postgres.run(DATABASE, &format!("{OLD}2)"));
    // This state is that of a restored dump of a database that had run for a long time.
    let restored = "UPDATE meta SET value = 900000000000 WHERE name = 'purged'; \
                    INSERT INTO changes (stack_uid, kind, changed_at, xid) VALUES \
                    ('00000000-0000-0000-0000-000000000001', 'issued', 1, '900000000001')";
    postgres.run(DATABASE, restored);
    store.renew_epoch().await.unwrap();
    assert_eq!(purged_up_to(&postgres), 0);
    assert_eq!(count(&postgres, "changes"), 2);
    postgres.run(DATABASE, &format!("{OLD}1)"));
    let batch = store.purge_changes(retention(7)).await.unwrap();
    assert_eq!(deleted(&batch, "changes"), 2);
    assert!(purged_up_to(&postgres) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_concurrent_runs_report_each_expiring_token_once() {
    let Some((postgres, first)) = migrated_database().await else {
        return;
    };
    let second = store(&postgres).await;
    fill(&postgres, 5, [0, 0, 3000]);
    let soon = "UPDATE tokens SET expires_at = (extract(epoch FROM now()) + 86400 * 3)::bigint * 1000000 \
                WHERE name <> 'n9'";
    postgres.run(DATABASE, soon);
    let now = SystemClock::new().now();
    let all = async |store: &Store| {
        let mut told = Vec::new();
        for _ in 0..20 {
            told.extend(store.report_expiring(now, 400).await.unwrap());
        }
        told
    };
    let (mut told, others) = join(all(&first), all(&second)).await;
    assert!(!told.is_empty() && !others.is_empty());
    told.extend(others);
    assert!(told.iter().all(|token| token.days == 7));
    assert_eq!(told.len(), 2999);
    told.sort_by_key(|token| token.token_uid);
    told.dedup_by_key(|token| token.token_uid);
    assert_eq!(told.len(), 2999);
    assert_eq!(first.count_expiring(now).await.unwrap(), [0, 2999, 2999]);
}

/// The plans are those of the statements that were really executed, as auto_explain has logged
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_housekeeping_reads_a_whole_table_of_100_000_tokens() {
    let Some((postgres, filling)) = migrated_database().await else {
        return;
    };
    fill(&postgres, 1000, [2000, 4000, 100_000]);
    let more = format!(
        "UPDATE tokens SET expires_at = (extract(epoch FROM now()) + 864000)::bigint * 1000000 \
         WHERE name LIKE '%77'; {OLD}50000); \
         INSERT INTO audit_events (uid, occurred_at, actor_kind, actor_issuer, actor_subject, \
         action, count, request_id, details) SELECT lpad(to_hex(n), 32, '0')::uuid, n * 100000000000, 'USER', 'i', \
         's', 'token_issue', 1, 'r', '{{}}' FROM generate_series(1, 50000) n; \
         ALTER DATABASE {DATABASE} SET session_preload_libraries = 'auto_explain'; \
         ALTER DATABASE {DATABASE} SET auto_explain.log_min_duration = 0"
    );
    postgres.run(DATABASE, &more);
    postgres.run(DATABASE, "VACUUM ANALYZE");
    drop(filling);
    let store = store(&postgres).await;
    let now = SystemClock::new().now();
    let tokens = store.purge_tokens(retention(90)).await.unwrap();
    assert_eq!(deleted(&tokens, "tokens"), 500);
    store.purge_usage(retention(90), None).await.unwrap();
    let audit = store.purge_audit(retention(400)).await.unwrap();
    assert_eq!(deleted(&audit, "audit_events"), 500);
    let changes = store.purge_changes(retention(7)).await.unwrap();
    assert_eq!(deleted(&changes, "changes"), 500);
    store.count_expiring(now).await.unwrap();
    assert_eq!(store.report_expiring(now, 100).await.unwrap().len(), 100);
    let log = postgres.log();
    for index in [
        "tokens_dead",
        "tokens_expiring",
        "changes_by_xid",
        "audit_events_by_time",
        "token_usage_pkey",
        "token_secrets_by_token",
        "requests_by_token",
    ] {
        assert!(log.contains(index), "{index} is not used: {log}");
    }
    for table in [
        "tokens",
        "token_usage",
        "token_secrets",
        "changes",
        "audit_events",
    ] {
        let whole = format!("Seq Scan on {table} ");
        assert!(!log.contains(&whole), "{whole}: {log}");
    }
}
