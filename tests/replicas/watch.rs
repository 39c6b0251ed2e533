//! Tests `Watch` over two replicas on one PostgreSQL. No acknowledged change is missed, no pong
//! covers a change that was not sent, and a stream can resume from every revision.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use stacktoken::{
    app::Safeguards,
    config::Tuning,
    grpc::pb::{
        admin::v1 as admin,
        v1::{self, watch_response::Event},
    },
};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    postgres::OpenTransaction,
    proxy::Link,
    support::{
        Client, at,
        clock::FAR,
        permissions, reason,
        requests::{
            Issued, UNTIL_FIRST_USE, revoke_request, rotate_request, set_expiry_request,
            update_request,
        },
        watching::{Watching, ping, staleness, subject},
    },
};

async fn watching(replica: &Replica, revision: &str) -> Watching {
    Watching::open(&replica.service, revision).await.unwrap()
}

async fn issued(cluster: &Cluster, name: &str) -> Issued {
    Issued::from(cluster.issue(name).await)
}

async fn issue_many(cluster: &Cluster, name: &str, count: usize) -> Vec<String> {
    cluster.allow_tokens(1000).await;
    let mut uids = Vec::new();
    for at in 0..count {
        uids.push(issued(cluster, &format!("{name} {at}")).await.uid);
    }
    uids
}

/// Returns the position in the change log that a revision contains.
fn position(revision: &str) -> i64 {
    i64::from_str_radix(&revision[16..], 16).unwrap()
}

/// Revokes a token with SQL in a transaction that stays open.
fn hold_revoke(cluster: &Cluster, uid: &str) -> OpenTransaction {
    cluster.postgres.hold(
        DATABASE,
        &format!(
            "UPDATE tokens SET revoked_at = 1, revoked_by_kind = 'USER', revoked_by_issuer = 'x', \
             revoked_by_subject = 'x' WHERE uid = '{uid}'; \
             INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
             SELECT stack_uid, uid, 'revoked', 1 FROM tokens WHERE uid = '{uid}'"
        ),
    )
}

async fn revoke(owner: &Client, stack: &str, uid: &str) -> v1::RevokeResponse {
    let request = revoke_request(stack, uid, "");
    let revoked = owner.tokens.clone().revoke(request).await;
    revoked.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_replicas_report_the_changes_of_each() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for (makes, other) in [(&cluster.a, &cluster.b), (&cluster.b, &cluster.a)] {
        let stack = cluster.register().await;
        let mut tokens = makes.owner.tokens.clone();
        let mut stacks = makes.operator.stacks.clone();
        let get = admin::GetRequest {
            stack_api_key: stack.clone(),
        };
        let known = stacks.get(get).await.unwrap().into_inner().stack.unwrap();
        let mut both = [watching(makes, "").await, watching(other, "").await];
        let request = crate::support::issue_request(&stack, "told of");
        let issued = Issued::from(tokens.issue(request).await.unwrap().into_inner());
        let (uid, this) = (&issued.uid, format!("token {}", issued.uid));
        let narrowed = v1::Token {
            permissions: Some(permissions(v1::Access::Read)),
            ..Default::default()
        };
        let update = update_request(&stack, uid, &["permissions"], narrowed);
        tokens.update(update).await.unwrap();
        let redate = set_expiry_request(&stack, uid, at(FAR));
        tokens.set_expiry(redate).await.unwrap();
        let rotate = rotate_request(&stack, uid, UNTIL_FIRST_USE);
        let newer = tokens.rotate(rotate).await.unwrap().into_inner();
        makes.warm(&stack, &newer.secret).await;
        revoke(&makes.owner, &stack, uid).await;
        let (stack_api_key, reason) = (stack.clone(), String::new());
        let suspend = admin::SuspendRequest {
            validate_only: false,
            stack_api_key: stack_api_key.clone(),
            reason: reason.clone(),
        };
        stacks.suspend(suspend).await.unwrap();
        let remove = admin::RemoveRequest {
            validate_only: false,
            stack_api_key,
            reason,
        };
        stacks.remove(remove).await.unwrap();
        let of_stack = format!("stack {}", known.stack_uid);
        // The token was updated, got a new expiry, and was rotated, first used and revoked. The
        // stack was suspended and removed.
        let wanted = [&[this.as_str(); 5][..], &[of_stack.as_str(); 2]].concat();
        for watching in &mut both {
            for what in &wanted {
                assert_eq!(subject(&watching.changed().await), *what);
            }
            assert!(watching.pong().await.unwrap().0.is_empty());
        }
    }
}

/// Returns how many revokes to make. The default is 200; set STACKTOKEN_TEST_REVOKES to measure the
/// figures in docs/reliability.md.
fn revokes() -> usize {
    std::env::var("STACKTOKEN_TEST_REVOKES").map_or(200, |count| count.parse().unwrap())
}

/// Pings as often as the server answers without delay. Asserts that each pong comes after every
/// change that was acknowledged before `sent_at - staleness`. Returns how many pongs moved this
/// instant forward.
async fn check_pongs(
    mut watching: Watching,
    acknowledged: Arc<Mutex<Vec<(String, Instant)>>>,
    count: usize,
) -> usize {
    let (mut told, mut covered) = (BTreeSet::new(), 0);
    let mut highest = 0;
    for nonce in 0.. {
        // Pings are sent less often than the server's limit of 20 pongs per second. Otherwise the
        // server would delay a ping, `sent` would be earlier than the time at which the server read
        // it, and the check below could miss a change that was sent slightly late.
        sleep(Duration::from_millis(52)).await;
        let sent = Instant::now();
        watching.send(ping(nonce));
        let pong = loop {
            match watching.next().await.unwrap() {
                Event::Changed(changed) => {
                    told.insert(subject(&changed));
                }
                Event::Pong(pong) => break pong,
            }
        };
        let since = sent.checked_sub(staleness(&pong)).unwrap();
        let acknowledged = acknowledged.lock().unwrap().clone();
        let before = acknowledged.iter().filter(|(_, at)| *at < since);
        let before: Vec<_> = before.map(|(uid, _)| uid).collect();
        let missing = before.iter().find(|uid| !told.contains(**uid));
        assert!(
            missing.is_none(),
            "the pong covers a change that was not sent: {missing:?}"
        );
        covered += usize::from(before.len() > highest);
        highest = highest.max(before.len());
        if highest == count {
            return covered;
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pong_covers_a_revoke_that_was_not_sent_before_it() {
    let count = revokes();
    // The lease is renewed often, so that a pong covers recent changes.
    let often = |tuning: &mut Tuning| tuning.freshness_bound = Duration::from_millis(200);
    let Some(cluster) = Cluster::start_with(often, Safeguards::default()).await else {
        return;
    };
    let uids = issue_many(&cluster, "acknowledged", count).await;
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut watchers = Vec::new();
    for at in 0..16 {
        let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
        let watching = watching(replica, "").await;
        watchers.push(tokio::spawn(check_pongs(
            watching,
            acknowledged.clone(),
            count,
        )));
    }
    for (at, uid) in uids.iter().enumerate() {
        let replica = if at % 3 == 0 { &cluster.b } else { &cluster.a };
        revoke(&replica.owner, &cluster.stack, uid).await;
        let done = (format!("token {uid}"), Instant::now());
        acknowledged.lock().unwrap().push(done);
    }
    let mut covered = 0;
    for watcher in watchers {
        covered += watcher.await.unwrap();
    }
    println!("{count} revokes, {covered} pongs that covered more than any before");
    assert!(covered >= 32, "too few pongs to check: {covered}");
}

/// Reads a stream until it has sent this many changes. Returns for each revision the changes that
/// were sent up to it.
async fn record(mut watching: Watching, until: usize) -> BTreeMap<String, BTreeSet<String>> {
    let mut told = BTreeSet::new();
    let mut points: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut nonce = 0;
    loop {
        let revision = match watching.next().await.unwrap() {
            Event::Changed(changed) => {
                told.insert(subject(&changed));
                changed.revision
            }
            Event::Pong(pong) => {
                nonce += 1;
                watching.send(ping(nonce));
                pong.revision
            }
        };
        // Only the first occurrence of each revision counts, because the fewest changes had been
        // sent then.
        points.entry(revision).or_insert_with(|| told.clone());
        if told.len() == until {
            return points;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_every_sent_revision_the_remaining_changes_follow_in_any_commit_order() {
    const ROUNDS: usize = 6;
    const BETWEEN: usize = 8;
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uids = issue_many(&cluster, "in any order", ROUNDS * (BETWEEN + 2)).await;
    let all: BTreeSet<_> = uids.iter().map(|uid| format!("token {uid}")).collect();
    let mut recorders = Vec::new();
    for replica in [&cluster.a, &cluster.b] {
        let opened = Watching::open_with(&replica.service, ping(0)).await;
        recorders.push(tokio::spawn(record(opened.unwrap(), all.len())));
    }
    let mut uids = uids.iter();
    for _ in 0..ROUNDS {
        // These two transactions begin before all others and end after them. The first one ends
        // last.
        let first = hold_revoke(&cluster, uids.next().unwrap());
        let second = hold_revoke(&cluster, uids.next().unwrap());
        let some: Vec<_> = uids.by_ref().take(BETWEEN).collect();
        let revokes = some.into_iter().enumerate().map(|(at, uid)| {
            let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
            revoke(&replica.owner, &cluster.stack, uid)
        });
        join_all(revokes).await;
        sleep(Duration::from_millis(60)).await;
        second.commit();
        sleep(Duration::from_millis(300)).await;
        first.commit();
    }
    let mut tried = 0;
    for (recorder, other) in recorders.into_iter().zip([&cluster.b, &cluster.a]) {
        for (revision, told) in recorder.await.unwrap() {
            let mut again = watching(other, &revision).await;
            let (rest, pong) = again.pong().await.unwrap();
            let rest: BTreeSet<_> = rest.iter().map(subject).collect();
            let both: BTreeSet<_> = told.union(&rest).cloned().collect();
            let missed: Vec<_> = all.difference(&both).collect();
            assert!(missed.is_empty(), "from {revision}: {missed:?} missed");
            assert!(position(&pong.revision) >= position(&revision));
            tried += 1;
        }
    }
    println!("resumed from {tried} revisions");
    assert!(tried >= 2 * ROUNDS, "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_opened_amid_changes_misses_none() {
    const COUNT: usize = 150;
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uids = issue_many(&cluster, "amid", COUNT).await;
    let all: BTreeSet<_> = uids.iter().map(|uid| format!("token {uid}")).collect();
    let (_, start) = watching(&cluster.a, "").await.pong().await.unwrap();
    let revoking = async {
        for uid in &uids {
            revoke(&cluster.a.owner, &cluster.stack, uid).await;
        }
    };
    let opening = async {
        let mut opened = Vec::new();
        for at in 0..40 {
            let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
            opened.push(watching(replica, &start.revision).await);
        }
        opened
    };
    let (opened, ()) = tokio::join!(opening, revoking);
    for mut watching in opened {
        let mut told = BTreeSet::new();
        let until = Instant::now() + Duration::from_secs(2);
        while told.len() < COUNT && Instant::now() < until {
            let (some, _) = watching.pong().await.unwrap();
            told.extend(some.iter().map(subject));
        }
        let missed: Vec<_> = all.difference(&told).collect();
        assert!(missed.is_empty(), "{missed:?} missed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_older_transaction_is_at_work_the_two_points_part() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uids = issue_many(&cluster, "parted", 2).await;
    let mut early = watching(&cluster.b, "").await;
    let held = hold_revoke(&cluster, &uids[0]);
    let revoked = revoke(&cluster.a.owner, &cluster.stack, &uids[1]).await;
    let changed = early.changed().await;
    let late = position(&revoked.revision);
    assert_eq!(changed.min_revision, revoked.revision);
    assert!(position(&changed.revision) < late, "{changed:?}");
    // A stream that is opened now does not get this change, but its `min_revision` must already
    // cover the change.
    let (told, pong) = watching(&cluster.b, "").await.pong().await.unwrap();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(pong.min_revision, revoked.revision);
    assert!(position(&pong.revision) < late, "{pong:?}");
    held.commit();
    let changed = early.changed().await;
    assert_eq!(subject(&changed), format!("token {}", uids[0]));
    assert_eq!(changed.min_revision, revoked.revision);
    let (_, pong) = early.pong().await.unwrap();
    assert_eq!(pong.revision, revoked.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_that_cannot_be_gone_on_from_are_refused_on_postgres_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (_, pong) = watching(&cluster.a, "").await.pong().await.unwrap();
    let (epoch, position) = pong.revision.split_at(16);
    let future = i64::from_str_radix(position, 16).unwrap() + 1_000_000;
    let elsewhere = u64::from_str_radix(epoch, 16).unwrap() ^ 1;
    for revision in [
        format!("{epoch}{future:x}"),
        format!("{elsewhere:016x}{position}"),
    ] {
        let opened = Watching::open(&cluster.b.service, &revision).await;
        assert_eq!(reason(&opened.err().unwrap()), "REVISION_UNKNOWN");
    }
    // A stream can start at position 0, because the whole change log is still available.
    watching(&cluster.b, &format!("{epoch}0")).await;
    // Wait until the pollers have read the log up to the current position.
    sleep(Duration::from_millis(600)).await;
    let purge = format!(
        "UPDATE meta SET value = {} WHERE name = 'purged'",
        future - 1_000_000
    );
    cluster.postgres.run(DATABASE, &purge);
    let opened = Watching::open(&cluster.b.service, &format!("{epoch}0")).await;
    assert_eq!(reason(&opened.err().unwrap()), "REVISION_PURGED");
    watching(&cluster.b, &pong.revision).await;
    // A purge of rows that the poller has already read does no harm. A purge of rows that it has
    // not read ends the streams.
    let mut open = watching(&cluster.b, "").await;
    sleep(Duration::from_millis(600)).await;
    assert!(open.pong().await.is_ok());
    let purge = format!("UPDATE meta SET value = {future} WHERE name = 'purged'");
    cluster.postgres.run(DATABASE, &purge);
    assert_eq!(reason(&open.end().await), "REVISION_PURGED");
}

/// Revokes a token during a fault, so that B cannot see the revoke. Asserts that no pong covers the
/// revoke, and that B sends the change after the fault.
async fn through(cluster: &Cluster, name: &str, begin: impl FnOnce(), end: impl FnOnce()) {
    let token = issued(cluster, name).await;
    let mut watching = watching(&cluster.b, "").await;
    watching.pong().await.unwrap();
    begin();
    let begun = Instant::now();
    let acknowledging = {
        let (owner, stack) = (cluster.a.owner.clone(), cluster.stack.clone());
        let uid = token.uid.clone();
        tokio::spawn(async move {
            let mut owner = owner.tokens;
            let done = owner.revoke(revoke_request(&stack, &uid, "")).await;
            done.is_ok().then(Instant::now)
        })
    };
    let mut stalest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(3) {
        let sent = Instant::now();
        let (told, pong) = watching.pong().await.unwrap();
        assert!(told.is_empty(), "{name}: sent during the fault: {told:?}");
        stalest = stalest.max(staleness(&pong));
        // No pong covers anything after the start of the fault.
        let since = sent.checked_sub(staleness(&pong)).unwrap();
        let slack = Duration::from_millis(100);
        assert!(since < begun + slack, "{name}: {:?}", since - begun);
    }
    assert!(stalest > Duration::from_secs(2), "{name}: {stalest:?}");
    end();
    let acknowledged = acknowledging.await.unwrap();
    if acknowledged.is_some() {
        let changed = watching.changed().await;
        assert_eq!(subject(&changed), format!("token {}", token.uid));
    }
    let until = Instant::now() + Duration::from_secs(10);
    while staleness(&watching.pong().await.unwrap().1) > Duration::from_secs(1) {
        assert!(Instant::now() < until, "{name}: never fresh again");
    }
    println!("{name}: stalest {stalest:?}, acknowledged {acknowledged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_pongs_grow_stale_and_the_revoke_is_reported_afterwards() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let down = || cluster.b.links(Link::BlackHole);
    through(&cluster, "hole", down, || cluster.b.links(Link::Up)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_frozen_pongs_grow_stale() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let freeze = || cluster.postgres.freeze(true);
    through(&cluster, "frozen", freeze, || {
        cluster.postgres.freeze(false)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_readable_primary_that_cannot_commit_renews_no_lease() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let run = |sql| cluster.postgres.run(DATABASE, sql);
    // The synchronous standby is gone, so every commit waits.
    let cut_off = || {
        run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        run("SELECT pg_reload_conf()");
    };
    let restore = || {
        run("ALTER SYSTEM RESET synchronous_standby_names");
        run("SELECT pg_reload_conf()");
    };
    through(&cluster, "cut off", cut_off, restore).await;
}
