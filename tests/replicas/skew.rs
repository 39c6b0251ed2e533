//! Tests replicas whose clocks differ by less than the difference that raises an alarm.

use std::time::{Duration, Instant};

use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::v1,
};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, Replica},
    support::{at, issue_request},
};

const SKEW: Duration = Duration::from_secs(1);

/// Waits until the replica answers that the token is inactive. Returns when this was, and the
/// reason.
async fn end(replica: &Replica, stack: &str, secret: &str) -> (Instant, v1::Reason) {
    loop {
        let answer = replica.introspect(stack, secret).await.unwrap();
        if !answer.active {
            return (Instant::now(), answer.reason());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_differs_between_replicas_by_their_skew_and_a_revoke_does_not() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.b.clock.set_ahead(SKEW);
    let expires_at = SystemClock::new().now().seconds() + 5;
    let request = v1::IssueRequest {
        expiry: Some(at(expires_at)),
        ..issue_request(&cluster.stack, "expiring")
    };
    let issued = cluster.a.owner.tokens.clone().issue(request).await.unwrap();
    let expiring = issued.into_inner().secret;
    let revoked = cluster.issue("revoked").await;
    for secret in [&expiring, &revoked.secret] {
        cluster.a.warm(&cluster.stack, secret).await;
        cluster.b.warm(&cluster.stack, secret).await;
    }

    cluster
        .revoke(&revoked.token.unwrap().token_uid)
        .await
        .unwrap();
    let acknowledged = Instant::now();
    let (seen, reason) = end(&cluster.b, &cluster.stack, &revoked.secret).await;
    assert_eq!(reason, v1::Reason::Revoked);
    assert!(seen - acknowledged <= Duration::from_secs(1));

    let ((at_a, why_a), (at_b, why_b)) = tokio::join!(
        end(&cluster.a, &cluster.stack, &expiring),
        end(&cluster.b, &cluster.stack, &expiring),
    );
    assert_eq!((why_a, why_b), (v1::Reason::Expired, v1::Reason::Expired));
    // Each replica uses its own clock to evaluate the expiry. On a busy machine, either answer may
    // come late.
    let skew = at_a - at_b;
    let slack = Duration::from_millis(400);
    assert!(
        skew + slack >= SKEW && skew <= SKEW + slack,
        "the ends are {skew:?} apart"
    );
}
