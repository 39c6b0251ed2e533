//! Tests the answers of a replica that is still connected to the former primary when the address
//! has moved to the new one.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    RECOVERY, SyncReplicas, issue_when_possible, known_tokens, move_links,
    observer::{BOUND, ObservedAnswer, Observer, Token, Tokens},
    rounds,
};
use crate::{cluster::DATABASE, proxy::Link};

const REVOKED_WITHIN: Duration = Duration::from_secs(15);

/// Revokes the tokens at A one by one, starting as soon as A accepts changes.
async fn revoke_at_a(pair: &SyncReplicas, asked: &Tokens, tokens: &[Token]) {
    for token in tokens {
        asked
            .revoke(&pair.cluster.a.owner, &token.uid, REVOKED_WITHIN)
            .await;
        sleep(Duration::from_millis(120)).await;
    }
}

/// Performs one failover. A moves to the new primary at once, but B keeps its connections to the
/// former one, which answers 0.6 s late.
async fn with_slow_connections(pair: &mut SyncReplicas, round: usize) -> (ObservedAnswer, Instant) {
    let (tokens, asked) = known_tokens(pair, round).await;
    let observer = Observer::start(&pair.cluster.b.service, &asked);
    let promoted = pair.promote();
    let port = pair.port();
    move_links(
        &pair.cluster.b,
        port,
        Link::Slow(Duration::from_millis(600)),
    );
    move_links(&pair.cluster.a, port, Link::Cut);
    revoke_at_a(pair, &asked, &tokens[1..]).await;
    sleep(BOUND + Duration::from_millis(1500)).await;
    (observer.stop().await, promoted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_connections_to_a_former_primary_show_no_revoked_token() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for round in 0..rounds() {
        if round > 0 {
            pair.rebuild();
        }
        let (seen, promoted) = with_slow_connections(&mut pair, round).await;
        println!(
            "slow connections, round {round}: {seen:?}, recovery {:?}",
            seen.recovery(promoted)
        );
        seen.assert_right();
        assert!(seen.recovery(promoted) <= RECOVERY, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_at_a_former_primary_are_neither_answered_nor_cached() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for round in 0..rounds() {
        if round > 0 {
            pair.rebuild();
        }
        let (tokens, asked) = known_tokens(&pair, round).await;
        let observer = Observer::start(&pair.cluster.b.service, &asked);
        pair.promote();
        let (port, b) = (pair.port(), &pair.cluster.b);
        // Lookups still go to the former primary, as they do behind a pooler that was not
        // reconfigured.
        b.control_link.move_to(port, Link::Cut);
        move_links(&pair.cluster.a, port, Link::Cut);
        let fresh = issue_when_possible(&pair.cluster, &format!("fresh {round}")).await;
        asked.add(fresh);
        revoke_at_a(&pair, &asked, &tokens[1..]).await;
        sleep(BOUND + Duration::from_secs(1)).await;
        let pinned = observer.take();
        println!("lookups at the former primary, round {round}: {pinned:?}");
        let moved = Instant::now();
        b.link.move_to(port, Link::Cut);
        sleep(RECOVERY + Duration::from_millis(300)).await;
        let after = observer.stop().await;
        println!(
            "lookups at the new primary, round {round}: {after:?}, recovery {:?}",
            after.recovery(moved)
        );
        pinned.assert_right();
        after.assert_right();
        assert!(after.recovery(moved) <= RECOVERY, "{after:?}");
        assert!(after.answers > 0, "{after:?}");
    }
}

/// Stops replication and consumes transaction ids on the former primary, so that the new one
/// assigns the same ids again. B stays connected to the former primary. A revoke gets such an id,
/// and B is asked with its revision within the bound, while B's lease holds. Returns how often B
/// answered "active" nevertheless.
async fn ask_with_a_reused_position(pair: &mut SyncReplicas, round: usize) -> usize {
    let (tokens, asked) = known_tokens(pair, round).await;
    let revoked = &tokens[1];
    pair.stop_streaming();
    let aborted = "DO $$ BEGIN FOR i IN 1..300 LOOP \
                   PERFORM pg_current_xact_id(); ROLLBACK; END LOOP; END $$";
    pair.cluster.postgres.run(DATABASE, aborted);
    pair.promote();
    move_links(&pair.cluster.a, pair.port(), Link::Cut);
    let revision = asked
        .revoke(&pair.cluster.a.owner, &revoked.uid, REVOKED_WITHIN)
        .await;
    let (mut active, mut answered) = (0, 0);
    let asking_since = Instant::now();
    while asking_since.elapsed() < BOUND {
        let b = &pair.cluster.b;
        let answer = b.introspect_since(&asked.stack, &revoked.secret, &revision);
        if let Ok(answer) = answer.await {
            answered += 1;
            active += usize::from(answer.active);
        }
        sleep(Duration::from_millis(5)).await;
    }
    println!("reused position, round {round}: {answered} answers, {active} active");
    active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_min_revision_is_not_met_by_an_id_of_the_former_primary() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for round in 0..rounds() {
        if round > 0 {
            pair.rebuild();
            move_links(&pair.cluster.b, pair.port(), Link::Cut);
        }
        assert_eq!(ask_with_a_reused_position(&mut pair, round).await, 0);
    }
}
