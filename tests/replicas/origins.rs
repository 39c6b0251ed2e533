//! Tests that evidence from different databases is never combined. If another database replaces the
//! one of running replicas, no replica answers from evidence of the former database. Each safeguard
//! has a control.

use std::time::{Duration, Instant};

use stacktoken::{
    app::Safeguards,
    config::Tuning,
    domain::{clock::SystemClock, entropy::OsEntropy},
    store::{Error, PoolSize, Store},
};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    control::{assert_shows, assert_shows_with},
    postgres::{self, Postgres},
    proxy::Link,
    support::{reason, watching::Watching},
};

const BOUND: Duration = Duration::from_secs(1);
/// The freshness bound for tests that crash the database. It is so long that no lease lapses during
/// the crash, even on a slow machine.
const LONGER: Duration = Duration::from_secs(2);

fn position(revision: &str) -> i64 {
    i64::from_str_radix(&revision[16..], 16).unwrap()
}

/// Consumes transaction ids without flushing anything to disk, and prints the next id. A NOTIFY
/// makes every replica poll immediately.
const BURN: [&str; 4] = [
    "SET synchronous_commit = off",
    "DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM pg_current_xact_id(); ROLLBACK; END LOOP; END $$",
    "NOTIFY stacktoken_changes",
    "SELECT pg_snapshot_xmax(pg_current_snapshot())",
];

/// The results of revokes that got a transaction id that had been assigned before a crash.
#[derive(Debug, Default)]
struct ReissuedIds {
    /// The number of rounds in which a revoke got such an id.
    rounds: usize,
    /// Active answers of B, to calls that began later than the bound after the revoke.
    stale: usize,
    /// Active answers of B, although the call had the `min_revision` of the revoke.
    despite_revision: usize,
    /// Revokes that were not sent on a stream of B.
    untold: usize,
}

/// Crashes the database so that it assigns ids again, and then revokes a token at A at once.
/// Repeats this until it has worked `wanted` times, because it does not work if a heartbeat flushes
/// the ids to disk first.
async fn crash_rounds(cluster: &mut Cluster, wanted: usize) -> ReissuedIds {
    let mut seen = ReissuedIds::default();
    cluster.allow_tokens(100).await;
    let live = cluster.issue("live").await.secret;
    for round in 0..8 * wanted {
        let issued = cluster.issue(&format!("round {round}")).await;
        let uid = issued.token.unwrap().token_uid;
        cluster.b.warm(&cluster.stack, &issued.secret).await;
        let watching = Watching::open(&cluster.b.service, "").await;
        let burned = cluster.postgres.run_each(DATABASE, &BURN);
        sleep(Duration::from_millis(15)).await;
        // B is cut off until the revoke is acknowledged, so that its next poll comes after the
        // revoke.
        cluster.b.links(Link::Cut);
        cluster.postgres.restart();
        let revoked = revoke_soon(cluster, &uid).await;
        let at = Instant::now();
        let goes_back = position(&revoked) < burned.lines().last().unwrap().parse().unwrap();
        if !goes_back {
            cluster.b.links(Link::Up);
            cluster.b.warm(&cluster.stack, &live).await;
            continue;
        }
        seen.rounds += 1;
        let asked = cluster
            .b
            .introspect_since(&cluster.stack, &issued.secret, &revoked)
            .await;
        seen.despite_revision += usize::from(asked.is_ok_and(|answer| answer.active));
        cluster.b.links(Link::Up);
        cluster.b.warm(&cluster.stack, &live).await;
        sleep((at + LONGER).saturating_duration_since(Instant::now())).await;
        let asked = cluster.b.introspect(&cluster.stack, &issued.secret).await;
        seen.stale += usize::from(asked.is_ok_and(|answer| answer.active));
        if let Ok(watching) = watching {
            seen.untold += usize::from(!is_reported(watching, &cluster.b, &uid).await);
        }
        if seen.rounds == wanted {
            break;
        }
    }
    assert!(seen.rounds > 0, "no id was assigned twice");
    println!("{seen:?}");
    seen
}

pub async fn revoke_soon(cluster: &Cluster, uid: &str) -> String {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match cluster.revoke(uid).await {
            Ok(revoked) => return revoked.revision,
            Err(status) => assert!(Instant::now() < until, "{status:?}"),
        }
    }
}

/// Returns whether a stream sends a change of this token, or ends. If it ends, the client clears
/// its cache.
async fn is_reported(mut watching: Watching, replica: &Replica, uid: &str) -> bool {
    let heard = async {
        loop {
            match watching.next().await {
                Ok(event) if format!("{event:?}").contains(uid) => return true,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    };
    let _ = replica;
    tokio::time::timeout(Duration::from_millis(200), heard)
        .await
        .unwrap_or(false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_whose_id_was_given_out_before_a_crash_is_seen() {
    let Some(mut cluster) = Cluster::start_with(longer, Safeguards::default()).await else {
        return;
    };
    let seen = crash_rounds(&mut cluster, setting("STACKTOKEN_TEST_CRASHES", 3)).await;
    assert_eq!(
        (seen.stale, seen.despite_revision, seen.untold),
        (0, 0, 0),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_incarnations_such_a_revoke_is_never_seen() {
    let without = Safeguards {
        incarnation: false,
        ..Safeguards::default()
    };
    assert_shows_with(longer, without, async |cluster| {
        let seen = crash_rounds(cluster, 1).await;
        seen.stale > 0 && seen.untold > 0
    })
    .await;
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn longer(tuning: &mut Tuning) {
    tuning.freshness_bound = LONGER;
}

/// Points both replicas to another database, as if the address had moved, and cuts their
/// connections.
pub async fn point_to(cluster: &Cluster, port: u16) {
    for replica in [&cluster.a, &cluster.b] {
        replica.link.point_to(port);
        replica.control_link.point_to(port);
        replica.links(Link::Cut);
    }
    sleep(Duration::from_millis(50)).await;
    for replica in [&cluster.a, &cluster.b] {
        replica.links(Link::Up);
    }
}

/// Replaces the database of running replicas with one on another server, which was restored from a
/// dump that is older than a revoke. Then asks for a while, with and without the revision of the
/// revoke. Returns how many answers were active, the secret, and the revision.
async fn restore_under(cluster: &Cluster, other: &Postgres) -> (usize, String, String) {
    let issued = cluster.issue("revoked after the dump").await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    cluster.postgres.copy_to(other, DATABASE);
    let uid = issued.token.unwrap().token_uid;
    let revision = cluster.revoke(&uid).await.unwrap().revision;
    // The other server's transaction ids are moved forward, so that comparing revisions is not
    // enough to notice that this is another database.
    let ahead =
        "DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    other.run(DATABASE, ahead);
    point_to(cluster, other.port()).await;
    let (mut active, begun) = (0, Instant::now());
    while begun.elapsed() < 3 * BOUND {
        for replica in [&cluster.a, &cluster.b] {
            let plain = replica.introspect(&cluster.stack, &issued.secret).await;
            let since = replica
                .introspect_since(&cluster.stack, &issued.secret, &revision)
                .await;
            for answer in [plain, since].into_iter().flatten() {
                active += usize::from(answer.active);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    (active, issued.secret, revision)
}

pub async fn open(postgres: &Postgres) -> Store {
    let location = postgres.url(postgres.port(), DATABASE).parse().unwrap();
    let ambient = (
        std::sync::Arc::new(SystemClock::new()) as _,
        std::sync::Arc::new(OsEntropy) as _,
    );
    let size = PoolSize { connections: 4 };
    Store::open(&location, size, ambient).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restored_under_running_replicas_is_refused_until_a_new_epoch() {
    let other = postgres::start_another_system();
    let (Some(cluster), Some(other)) = (Cluster::start().await, other) else {
        return;
    };
    let (active, secret, revision) = restore_under(&cluster, &other).await;
    assert_eq!(active, 0, "an answer reflects the restored state");
    let store = open(&other).await;
    let refused = store.require_home().await;
    assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
    store.require_current_schema().await.unwrap();
    store.renew_epoch().await.unwrap();
    store.require_home().await.unwrap();
    // From now on the restored rows are the truth, and earlier revisions are unknown.
    cluster.b.warm(&cluster.stack, &secret).await;
    let asked = cluster
        .b
        .introspect_since(&cluster.stack, &secret, &revision)
        .await;
    assert_eq!(reason(&asked.unwrap_err()), "REVISION_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_system_check_a_restored_dump_is_trusted() {
    let without = Safeguards {
        system: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        // This is never `None`, because the cluster is running, so PostgreSQL must be installed.
        let other = postgres::start_another_system().unwrap();
        restore_under(cluster, &other).await.0 > 0
    })
    .await;
}

/// The answers of a replica whose lookups still go to a former primary, over a separate connection.
#[derive(Debug, Default)]
struct FormerPrimaryAnswers {
    /// Active answers about a token that was revoked at the new primary.
    stale: usize,
    /// NOT_RECOGNIZED answers about a token that was issued at the new primary.
    unknown: usize,
    refused: usize,
}

async fn look_up_at_a_former_primary(cluster: &mut Cluster) -> FormerPrimaryAnswers {
    let dead = cluster.issue("dead").await;
    cluster.a.warm(&cluster.stack, &dead.secret).await;
    let new = cluster.postgres.cold_copy();
    let former = cluster.postgres.port();
    point_to(cluster, new.port()).await;
    cluster.b.link.point_to(former);
    cluster.b.link.set(Link::Cut);
    sleep(Duration::from_millis(50)).await;
    cluster.b.link.set(Link::Up);
    cluster.a.warm(&cluster.stack, &dead.secret).await;
    // Until its heartbeat reaches the new primary, B may still trust the former one, but no longer
    // than the bound.
    sleep(BOUND).await;
    revoke_soon(cluster, &dead.token.unwrap().token_uid).await;
    let revoked = Instant::now();
    let live = cluster.issue("live").await;
    let mut seen = FormerPrimaryAnswers::default();
    while revoked.elapsed() < 3 * BOUND {
        let begun = Instant::now();
        match cluster.b.introspect(&cluster.stack, &dead.secret).await {
            Ok(answer) => seen.stale += usize::from(answer.active && begun > revoked + BOUND),
            Err(_) => seen.refused += 1,
        }
        match cluster.b.introspect(&cluster.stack, &live.secret).await {
            Ok(answer) => seen.unknown += usize::from(!answer.active),
            Err(_) => seen.refused += 1,
        }
        sleep(Duration::from_millis(20)).await;
    }
    // Once its lookups go to the new primary, B answers again.
    cluster.b.link.point_to(new.port());
    cluster.b.link.set(Link::Cut);
    sleep(Duration::from_millis(50)).await;
    cluster.b.link.set(Link::Up);
    let stack = cluster.stack.clone();
    if seen.stale + seen.unknown == 0 {
        cluster.b.warm(&stack, &live.secret).await;
        let dead = cluster.b.introspect(&stack, &dead.secret).await;
        assert!(!dead.unwrap().active);
    }
    println!("{seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_at_a_former_primary_is_never_answered() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let seen = look_up_at_a_former_primary(&mut cluster).await;
    assert_eq!((seen.stale, seen.unknown), (0, 0), "{seen:?}");
    assert!(seen.refused > 0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_origin_check_a_former_primary_is_trusted() {
    let without = Safeguards {
        look_up_origins: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        let seen = look_up_at_a_former_primary(cluster).await;
        seen.stale > 0 && seen.unknown > 0
    })
    .await;
}

/// Delays B's heartbeats, so that for part of the time the last one is too old to prove a lookup.
/// Returns how many of B's calls were answered, and how many were refused.
async fn ask_beside_late_heartbeats(cluster: &Cluster) -> (usize, usize) {
    let live = cluster.issue("live").await.secret;
    cluster.b.warm(&cluster.stack, &live).await;
    cluster
        .b
        .control_link
        .set(Link::Slow(Duration::from_millis(400)));
    sleep(2 * BOUND).await;
    let (mut answered, mut refused, begun) = (0, 0, Instant::now());
    while begun.elapsed() < 3 * BOUND {
        match cluster.b.introspect(&cluster.stack, &live).await {
            Ok(answer) => {
                assert!(answer.active);
                answered += 1;
            }
            Err(status) => {
                assert_eq!(reason(&status), "NOT_FRESH");
                refused += 1;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    println!("{answered} answered, {refused} refused");
    (answered, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_waits_for_the_heartbeat_that_proves_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (answered, refused) = ask_beside_late_heartbeats(&cluster).await;
    assert!(answered > 0);
    assert_eq!(refused, 0, "of {answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_patience_it_is_refused() {
    let without = Safeguards {
        patience: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        ask_beside_late_heartbeats(cluster).await.1 > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_ask_who_answers_is_served_without() {
    let Some(server) = postgres::start() else {
        return;
    };
    server.create(DATABASE);
    let deny = "CREATE ROLE plain LOGIN; GRANT ALL ON SCHEMA public TO plain; \
                REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; \
                REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC";
    server.run(DATABASE, deny);
    let url = server.url(server.port(), DATABASE);
    let url = url.replace("//postgres@", "//plain@");
    let ambient = (
        std::sync::Arc::new(SystemClock::new()) as _,
        std::sync::Arc::new(OsEntropy) as _,
    );
    let size = PoolSize { connections: 4 };
    let store = Store::open(&url.parse().unwrap(), size, ambient)
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store.require_current_schema().await.unwrap();
    store.require_home().await.unwrap();
    let now = stacktoken::domain::clock::Clock::now(&SystemClock::new());
    let first = store.beat(now).await.unwrap();
    assert_eq!(
        (first.origin.system, first.origin.timeline.as_str()),
        (None, "")
    );
    assert_ne!(first.origin.incarnation, 0);
    let again = store.beat(now).await.unwrap();
    assert!(again.origin.is(&first.origin));
    let read = store.read_history(None).await.unwrap();
    assert!(read.next.origin().is(&first.origin));
    store.renew_epoch().await.unwrap();
    assert!(!store.beat(now).await.unwrap().origin.is(&first.origin));
}
