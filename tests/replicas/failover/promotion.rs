//! Tests the answers about tokens that were issued at the new primary, from a replica that is still
//! connected to the former one.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    RECOVERY, SyncReplicas, issue_when_possible, known_tokens, move_links,
    observer::{BOUND, Observer},
    rounds,
};
use crate::proxy::Link;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_issued_at_the_new_primary_is_recognized_within_the_bound() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for round in 0..rounds() {
        if round > 0 {
            pair.rebuild();
        }
        let (_, asked) = known_tokens(&pair, round).await;
        let observer = Observer::start(&pair.cluster.b.service, &asked);
        let promoted = pair.promote();
        let port = pair.port();
        // B's connections to the former primary stay open and still work. Only new connections lead
        // to the new primary.
        move_links(&pair.cluster.b, port, Link::Up);
        move_links(&pair.cluster.a, port, Link::Cut);
        for at in 0..8 {
            asked.add(issue_when_possible(&pair.cluster, &format!("new {round}-{at}")).await);
            sleep(Duration::from_millis(120)).await;
        }
        sleep(BOUND + RECOVERY).await;
        let seen = observer.stop().await;
        println!(
            "new tokens, round {round}: {seen:?}, recovery {:?}",
            seen.recovery(promoted)
        );
        seen.assert_right();
        assert!(seen.recovery(promoted) <= RECOVERY, "{seen:?}");
    }
}
