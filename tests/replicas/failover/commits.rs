//! Tests a COMMIT that waits for a standby that is gone. Its outcome is unknown, and stays unknown
//! if an administrator cancels the wait, although PostgreSQL then reports success with a warning.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic::Code;

use super::{
    RECOVERY, SyncReplicas, issue_when_possible, known_tokens, move_links,
    observer::{BOUND, Observer, Token},
};
use crate::{proxy::Link, support::requests::revoke_request};

const REVOKED_WITHIN: Duration = Duration::from_secs(15);

/// Revokes a token at A while every COMMIT waits. Returns the result of the call.
async fn revoke_without_standby(
    pair: &SyncReplicas,
    token: &Token,
    meanwhile: impl AsyncFnOnce(),
) -> Result<(), tonic::Status> {
    let (owner, stack) = (pair.cluster.a.owner.clone(), pair.cluster.stack.clone());
    let uid = token.uid.clone();
    let revoking = tokio::spawn(async move {
        let request = revoke_request(&stack, &uid, "");
        owner.tokens.clone().revoke(request).await.map(|_| ())
    });
    meanwhile().await;
    revoking.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_wait_for_the_standby_is_never_acknowledged() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    for at in 0..3 {
        let token = issue_when_possible(&pair.cluster, &format!("token {at}")).await;
        pair.standby.as_mut().unwrap().stop();
        let postgres = &pair.cluster.postgres;
        let revoked = revoke_without_standby(&pair, &token, async || {
            let until = Instant::now() + Duration::from_secs(4);
            while postgres.cancel_waiting_commits("COMMIT%") == 0 {
                assert!(Instant::now() < until, "no COMMIT waits");
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let status = revoked.expect_err("acknowledged although no standby has it");
        assert!(
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            "{status:?}"
        );
        pair.standby.as_mut().unwrap().launch();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_whose_wait_was_cancelled_proves_nothing() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    let (tokens, asked) = known_tokens(&pair, 0).await;
    let observer = Observer::start(&pair.cluster.b.service, &asked);
    // B is still connected to the former primary, where an administrator cancels every wait.
    pair.promote();
    move_links(&pair.cluster.a, pair.port(), Link::Cut);
    let former = pair.former.as_ref().unwrap();
    let cancelling = async {
        loop {
            former.cancel_waiting_commits("%");
            sleep(Duration::from_millis(30)).await;
        }
    };
    let revoking = async {
        for token in &tokens[1..3] {
            asked
                .revoke(&pair.cluster.a.owner, &token.uid, REVOKED_WITHIN)
                .await;
        }
        sleep(BOUND + Duration::from_secs(2)).await;
    };
    tokio::select! {
        () = revoking => {}
        () = cancelling => {}
    }
    let seen = observer.stop().await;
    println!("cancelled heartbeats: {seen:?}");
    seen.assert_right();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_whose_default_is_to_commit_locally_is_not_believed() {
    let Some(mut pair) = SyncReplicas::start().await else {
        return;
    };
    let defaults = "ALTER ROLE postgres SET synchronous_commit = local";
    pair.cluster.postgres.run("postgres", defaults);
    // Existing connections keep the former default, so they are closed.
    for replica in [&pair.cluster.a, &pair.cluster.b] {
        move_links(replica, pair.port(), Link::Cut);
    }
    sleep(BOUND).await;
    let (tokens, asked) = known_tokens(&pair, 0).await;
    let observer = Observer::start(&pair.cluster.b.service, &asked);
    pair.promote();
    move_links(&pair.cluster.a, pair.port(), Link::Cut);
    for token in &tokens[1..3] {
        asked
            .revoke(&pair.cluster.a.owner, &token.uid, REVOKED_WITHIN)
            .await;
    }
    sleep(BOUND + Duration::from_secs(2)).await;
    let pinned = observer.take();
    println!("local commits: {pinned:?}");
    let moved = Instant::now();
    move_links(&pair.cluster.b, pair.port(), Link::Cut);
    sleep(RECOVERY).await;
    let after = observer.stop().await;
    println!("moved: {after:?}, recovery {:?}", after.recovery(moved));
    pinned.assert_right();
    after.assert_right();
}
