//! Tests how many tokens are reported to expire soon, and which expiries are logged.

use std::time::Duration;

use super::{DAY, start_with_housekeeping};
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
    let what = format!("{wanted:?} tokens expire soon");
    eventually(&what, async || {
        (expiring(server).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_tokens_are_counted_by_the_days_that_are_left() {
    let server = start_with_housekeeping().await;
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
    // The first token has expired, and the last one now expires within 30 days.
    server.clock.advance(Duration::from_secs(60));
    becomes(&server, [2.0, 3.0, 5.0]).await;
    // Tokens of a removed stack are revoked, so they are not counted.
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

/// Returns for how many days before the expiry of a token the last warning was logged, or 0 if no
/// warning was.
async fn reported_days(server: &TestServer, name: &str) -> i64 {
    let sql = format!("SELECT COALESCE(expiry_told, 0) FROM tokens WHERE name = '{name}'");
    server.outside().await.number(&sql).await
}

async fn wait_until_reported(server: &TestServer, name: &str, days: i64) {
    let what = format!("the expiry of {name} logged for {days} days");
    eventually(&what, async || {
        (reported_days(server, name).await == days).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_expiry_threshold_is_reported_once_and_only_the_nearest_due() {
    let server = start_with_housekeeping().await;
    server.token_until("far", at(START + 31 * A_DAY)).await;
    server.token_until("near", at(START + 3 * A_DAY)).await;
    wait_until_reported(&server, "near", 7).await;
    assert_eq!(reported_days(&server, "far").await, 0);
    server.clock.advance(DAY);
    wait_until_reported(&server, "far", 30).await;
    assert_eq!(reported_days(&server, "near").await, 7);
    server.clock.advance(DAY);
    wait_until_reported(&server, "near", 1).await;
    assert_eq!(reported_days(&server, "far").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_later_expiry_is_reported_again() {
    let server = start_with_housekeeping().await;
    let token = server.token_until("dated", at(START + 3 * A_DAY)).await;
    wait_until_reported(&server, "dated", 7).await;
    let (mut owner, stack) = (server.owner().await, server.stack.clone());
    let rename = rename_request(&stack, &token.uid, "renamed");
    owner.tokens.update(rename).await.unwrap();
    assert_eq!(reported_days(&server, "renamed").await, 7);
    let mut redate = async |expiry| {
        let request = set_expiry_request(&stack, &token.uid, expiry);
        owner.tokens.set_expiry(request).await.unwrap();
    };
    redate(at(START + 2 * A_DAY)).await;
    assert_eq!(reported_days(&server, "renamed").await, 7);
    redate(at(START + 20 * A_DAY)).await;
    wait_until_reported(&server, "renamed", 30).await;
    redate(never()).await;
    assert_eq!(reported_days(&server, "renamed").await, 0);
}
