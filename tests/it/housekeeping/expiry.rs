//! Tokens that expire soon: how many, and of which it was told.

use std::time::Duration;

use super::{DAY, tidy};
use crate::support::{
    TestServer, at,
    clock::START,
    database::eventually,
    never,
    requests::{rename_request, set_expiry_request},
};

const A_DAY: i64 = 24 * 3600;

async fn expiring(server: &TestServer) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for (count, within) in counts.iter_mut().zip(["1d", "7d", "30d"]) {
        let name = format!("stacktoken_tokens_expiring{{within=\"{within}\"}}");
        *count = server.metric(&name).await;
    }
    counts
}

async fn becomes(server: &TestServer, wanted: [f64; 3]) {
    let what = format!("{wanted:?} tokens that expire soon");
    eventually(&what, async || {
        (expiring(server).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_tokens_are_counted_by_the_days_that_are_left() {
    let server = tidy().await;
    assert_eq!(expiring(&server).await, [0.0; 3]);
    server.token("never").await;
    let ends = [60, A_DAY, A_DAY + 1, 7 * A_DAY, 30 * A_DAY, 30 * A_DAY + 1];
    for (name, seconds) in ends.into_iter().enumerate() {
        server
            .token_until(&format!("t{name}"), at(START + seconds))
            .await;
    }
    becomes(&server, [2.0, 4.0, 5.0]).await;
    let revoked = server.token_until("revoked", at(START + 90)).await;
    becomes(&server, [3.0, 5.0, 6.0]).await;
    server.revoke(&revoked.uid).await;
    becomes(&server, [2.0, 4.0, 5.0]).await;
    // The first expires, and the last comes near enough.
    server.clock.advance(Duration::from_secs(60));
    becomes(&server, [2.0, 3.0, 5.0]).await;
    // What belongs to a removed stack is dead.
    let other = server.register("Other").await;
    let mut request = crate::support::issue_request(&other, "of another stack");
    request.expiry = Some(at(START + 3600));
    server.owner().await.tokens.issue(request).await.unwrap();
    becomes(&server, [3.0, 4.0, 6.0]).await;
    let remove = stacktoken::grpc::pb::admin::v1::RemoveRequest {
        validate_only: false,
        stack_api_key: other,
        reason: "gone".into(),
    };
    server.operator().await.stacks.remove(remove).await.unwrap();
    becomes(&server, [2.0, 3.0, 5.0]).await;
}

/// What was told of a token last: the number of days, or 0 for nothing.
async fn told(server: &TestServer, name: &str) -> i64 {
    let sql = format!("SELECT COALESCE(expiry_told, 0) FROM tokens WHERE name = '{name}'");
    server.outside().await.number(&sql).await
}

async fn is_told(server: &TestServer, name: &str, days: i64) {
    let what = format!("{name} told for {days} days");
    eventually(&what, async || {
        (told(server, name).await == days).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_threshold_is_told_and_one_that_is_due_at_once_only_by_the_nearest() {
    let server = tidy().await;
    server.token_until("far", at(START + 31 * A_DAY)).await;
    server.token_until("near", at(START + 3 * A_DAY)).await;
    is_told(&server, "near", 7).await;
    assert_eq!(told(&server, "far").await, 0);
    server.clock.advance(DAY);
    is_told(&server, "far", 30).await;
    assert_eq!(told(&server, "near").await, 7);
    server.clock.advance(DAY);
    is_told(&server, "near", 1).await;
    assert_eq!(told(&server, "far").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_expiry_is_told_anew_and_no_other_change_is() {
    let server = tidy().await;
    let token = server.token_until("dated", at(START + 3 * A_DAY)).await;
    is_told(&server, "dated", 7).await;
    let (mut owner, stack) = (server.owner().await, server.stack.clone());
    let rename = rename_request(&stack, &token.uid, "renamed");
    owner.tokens.update(rename).await.unwrap();
    assert_eq!(told(&server, "renamed").await, 7);
    let mut redate = async |expiry| {
        let request = set_expiry_request(&stack, &token.uid, expiry);
        owner.tokens.set_expiry(request).await.unwrap();
    };
    redate(at(START + 2 * A_DAY)).await;
    assert_eq!(told(&server, "renamed").await, 7);
    redate(at(START + 20 * A_DAY)).await;
    is_told(&server, "renamed", 30).await;
    redate(never()).await;
    assert_eq!(told(&server, "renamed").await, 0);
}
