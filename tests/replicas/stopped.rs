//! Tests a replica that stops, or whose packets are lost, during a change. It holds the lock of its
//! stack, and the database gets no more packets from it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;
use tonic::Code;

use crate::{
    cluster::{Cluster, DATABASE},
    proxy::Link,
    support::{
        clients::details,
        issue_request, reason,
        requests::{rename_request, revoke_request},
    },
};

/// The maximum time for which a replica that is gone may keep a lock.
const FREE_WITHIN: Duration = Duration::from_secs(10);
/// How many retries the owner sends at the same time.
const RETRIES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_vanishes_inside_a_change_frees_its_stack_and_hinders_no_other() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let other = cluster.register().await;
    let kept = cluster.issue("kept").await;
    cluster.b.warm(&cluster.stack, &kept.secret).await;
    let uid = cluster.issue("before").await.token.unwrap().token_uid;
    // A waits for the lock of the stack, and is cut off before it gets the lock.
    let lock = format!(
        "UPDATE stacks SET name = name WHERE key = '{}'",
        cluster.stack
    );
    let held = cluster.postgres.hold(DATABASE, &lock);
    let (mut owner, rename) = (
        cluster.a.owner.clone(),
        rename_request(&cluster.stack, &uid, "after"),
    );
    let update = tokio::spawn(async move { owner.tokens.update(rename).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while cluster.postgres.run(DATABASE, waits) == "0" {
        sleep(Duration::from_millis(10)).await;
    }
    cluster.a.link.set(Link::BlackHole);
    held.commit();
    let gone = Instant::now();
    let retries = (0..RETRIES).map(|_| async {
        let mut owner = cluster.b.owner.clone();
        loop {
            let revoke = revoke_request(&cluster.stack, &uid, "");
            match owner.tokens.revoke(revoke).await {
                Ok(_) => return gone.elapsed(),
                Err(status) => assert!(gone.elapsed() < 2 * FREE_WITHIN, "{status:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let others = async {
        let (mut owner, mut slowest) = (cluster.b.owner.clone(), Duration::ZERO);
        let mut at = 0;
        while gone.elapsed() < Duration::from_secs(6) {
            at += 1;
            let begun = Instant::now();
            let issue = issue_request(&other, &format!("t{at}"));
            match owner.tokens.issue(issue).await {
                Ok(_) => {}
                Err(status) => assert_eq!(reason(&status), "TOKEN_LIMIT_REACHED"),
            }
            let answer = cluster.b.introspect(&cluster.stack, &kept.secret).await;
            assert!(answer.unwrap().active);
            slowest = slowest.max(begun.elapsed());
            sleep(Duration::from_millis(50)).await;
        }
        slowest
    };
    let (freed, slowest) = tokio::join!(join_all(retries), others);
    let (first, last) = (freed.iter().min().unwrap(), freed.iter().max().unwrap());
    println!("revoked after {first:?} to {last:?}, other stacks within {slowest:?}");
    assert!(*first <= FREE_WITHIN, "{first:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // A is connected again. It must not report the change as done, because it was rolled back.
    cluster.a.link.set(Link::Up);
    let status = update.await.unwrap().unwrap_err();
    assert!(
        [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code()),
        "{status:?}"
    );
    let sql = format!("SELECT name FROM tokens WHERE uid = '{uid}'");
    assert_eq!(cluster.postgres.run(DATABASE, &sql), "before");
}

/// The number of concurrent changes to one stack, which is more than the stack's queue holds.
const CROWD: usize = 160;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_beyond_the_queue_of_a_stack_are_overloaded_at_once_and_no_others() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let other = cluster.register().await;
    let uid = cluster.issue("one").await.token.unwrap().token_uid;
    let lock = format!(
        "UPDATE stacks SET name = name WHERE key = '{}'",
        cluster.stack
    );
    let held = cluster.postgres.hold(DATABASE, &lock);
    let revokes = (0..CROWD).map(|_| async {
        let (mut owner, begun) = (cluster.b.owner.clone(), Instant::now());
        let revoke = revoke_request(&cluster.stack, &uid, "");
        (owner.tokens.revoke(revoke).await, begun.elapsed())
    });
    let others = async {
        sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        let issue = issue_request(&other, "beside");
        cluster.b.owner.clone().tokens.issue(issue).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let waiting = cluster.postgres.run(DATABASE, waiting);
        held.commit();
        (begun.elapsed(), waiting)
    };
    let (done, (beside, waiting)) = tokio::join!(join_all(revokes), others);
    let refused: Vec<_> = done
        .iter()
        .filter_map(|(answer, took)| Some((answer.as_ref().err()?, took)))
        .collect();
    for (status, took) in &refused {
        assert_eq!(reason(status), "OVERLOADED");
        assert!(details(status).retry_info().is_some());
        assert!(**took < Duration::from_secs(2), "{took:?}");
    }
    assert_eq!(refused.len(), CROWD - 102, "two run and 100 are queued");
    assert!(
        waiting.parse::<u32>().unwrap() <= 2,
        "{waiting} connections"
    );
    assert!(beside < Duration::from_secs(2), "{beside:?}");
}
