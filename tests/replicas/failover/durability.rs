//! Tests that no acknowledged change is lost in a failover to a synchronous standby.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{SyncReplicas, issue_when_possible, move_links, observer::Token, rounds};
use crate::{
    cluster::DATABASE,
    proxy::Link,
    support::{Client, issue_request, requests::revoke_request},
};

/// How many revokes must be acknowledged before the crash.
const REVOKES: usize = 12;

/// The changes that were acknowledged.
#[derive(Default)]
struct Acknowledged {
    issued: Vec<Token>,
    revoked: Vec<String>,
}

/// Issues tokens and revokes every second one, until the task is aborted.
async fn write(owner: Client, stack: String, book: Arc<Mutex<Acknowledged>>, writer: usize) {
    for at in 0.. {
        let request = issue_request(&stack, &format!("writer {writer} token {at}"));
        let Ok(issued) = owner.tokens.clone().issue(request).await else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let token = Token::from(issued.into_inner());
        let uid = token.uid.clone();
        book.lock().unwrap().issued.push(token);
        if at % 2 == 0 {
            let request = revoke_request(&stack, &uid, "");
            if owner.tokens.clone().revoke(request).await.is_ok() {
                book.lock().unwrap().revoked.push(uid);
            }
        }
    }
}

/// Crashes the primary under load and promotes its standby. Returns the changes that were
/// acknowledged.
async fn fail_over_under_load(pair: &mut SyncReplicas, round: usize) -> Acknowledged {
    let book = Arc::new(Mutex::new(Acknowledged::default()));
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let side = [&pair.cluster.a, &pair.cluster.b][writer % 2];
        let (owner, stack) = (side.owner.clone(), pair.cluster.stack.clone());
        writers.spawn(write(owner, stack, book.clone(), 10 * round + writer));
    }
    let until = Instant::now() + Duration::from_secs(30);
    while book.lock().unwrap().revoked.len() < REVOKES {
        assert!(Instant::now() < until, "too few revokes within 30 s");
        sleep(Duration::from_millis(5)).await;
    }
    pair.cluster.postgres.stop();
    pair.promote();
    for replica in [&pair.cluster.a, &pair.cluster.b] {
        move_links(replica, pair.port(), Link::Cut);
    }
    issue_when_possible(&pair.cluster, &format!("after round {round}")).await;
    writers.shutdown().await;
    Arc::into_inner(book).unwrap().into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_synchronous_standby_loses_nothing_acknowledged() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for round in 0..rounds() {
        if round > 0 {
            pair.rebuild();
        }
        let done = fail_over_under_load(&mut pair, round).await;
        let rows = |sql: &str| -> Vec<String> {
            let found = pair.cluster.postgres.run(DATABASE, sql);
            found.lines().map(str::to_owned).collect()
        };
        let known = rows("SELECT uid FROM tokens");
        let dead = rows("SELECT uid FROM tokens WHERE revoked_at IS NOT NULL");
        let lost = |uids: &mut dyn Iterator<Item = &String>, kept: &[String]| {
            uids.filter(|uid| !kept.contains(uid)).count()
        };
        let issues = lost(&mut done.issued.iter().map(|token| &token.uid), &known);
        let revokes = lost(&mut done.revoked.iter(), &dead);
        println!(
            "round {round}: {} issues and {} revokes acknowledged, {issues} and {revokes} lost",
            done.issued.len(),
            done.revoked.len()
        );
        assert_eq!((issues, revokes), (0, 0));
        for token in done.issued.iter().take(20) {
            let uid = &token.uid;
            let began = Instant::now();
            // The replica may refuse calls for a moment, but its first verdict must reflect the
            // acknowledged changes.
            let answer = loop {
                let asked = pair
                    .cluster
                    .b
                    .introspect(&pair.cluster.stack, &token.secret);
                match timeout(Duration::from_secs(6), asked).await.unwrap() {
                    Ok(answer) => break answer,
                    Err(status) => assert!(began.elapsed() < Duration::from_secs(5), "{status:?}"),
                }
                sleep(Duration::from_millis(20)).await;
            };
            // A revoke whose caller has disconnected may have been committed since `dead` was read, so
            // an inactive answer is compared with the rows as they are now.
            let dead_by_now = rows("SELECT uid FROM tokens WHERE revoked_at IS NOT NULL");
            let dead = if answer.active { &dead } else { &dead_by_now };
            assert_eq!(answer.active, !dead.contains(uid), "{answer:?}");
        }
    }
}
