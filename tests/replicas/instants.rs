//! Tests the instant of a decision (R8), which the database's clock determines. If the message of a
//! call arrives, or the call gets the lock of its stack, after a token has expired, it is too late
//! on either replica.

use std::time::Duration;

use futures_util::future::join_all;
use stacktoken::{
    domain::clock::{Clock, SystemClock},
    grpc::pb::v1,
};
use tonic::{Status, transport::Endpoint};

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    support::{
        at_instant, issue_request,
        late::{LateQuestion, PendingCall, outcome},
        never, reason,
        requests::{Issued, revoke_request, set_expiry_request},
    },
};

/// The lifetime of tokens in these tests. It is longer than the permitted clock skew, because an
/// expiry that is closer than the skew cannot be postponed.
const LIVES_FOR: Duration = Duration::from_secs(4);

fn rounds() -> usize {
    let rounds = std::env::var("STACKTOKEN_TEST_ROUNDS");
    rounds.map_or(2, |rounds| rounds.parse().unwrap())
}

fn now() -> i64 {
    SystemClock::new().now().as_micros()
}

async fn until(micros: i64) {
    let left = u64::try_from(micros - now()).unwrap_or_default();
    tokio::time::sleep(Duration::from_micros(left)).await;
}

/// What delays the decision of a call until after the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DelayedBy {
    /// Nothing delays the call. This case is the control.
    Not,
    ByItsMessage,
    ByTheLock,
}

async fn verdict_text(replica: &Replica, stack: &str, secret: &str) -> String {
    match replica.introspect(stack, secret).await {
        Ok(answer) if answer.active => "OK".into(),
        Ok(answer) => answer.reason().as_str_name().replace("REASON_", ""),
        Err(status) => reason(&status),
    }
}

/// Issues a token that expires while a call about the token waits.
async fn wait_over_the_expiry(
    cluster: &Cluster,
    replica: &Replica,
    asked: LateQuestion,
    delayed_by: DelayedBy,
) {
    let stack = cluster.register().await;
    let ends = now() + i64::try_from(LIVES_FOR.as_micros()).unwrap();
    let request = v1::IssueRequest {
        expiry: Some(at_instant(ends)),
        ..issue_request(&stack, "short")
    };
    let issued = replica.owner.tokens.clone().issue(request).await;
    let token = Issued::from(issued.unwrap().into_inner());
    replica.warm(&stack, &token.secret).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", replica.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let jwt = cluster.issuer.user("owner", now() / 1_000_000);
    let held = (delayed_by == DelayedBy::ByTheLock).then(|| {
        let lock = format!("UPDATE stacks SET name = name WHERE key = '{stack}'");
        cluster.postgres.hold(DATABASE, &lock)
    });
    let late = PendingCall::begin(&channel, &jwt, (asked, &stack), (&token, ends)).await;
    let case = format!("{asked:?} {delayed_by:?}");
    assert!(
        now() < ends,
        "{case}: the machine is too slow for this test"
    );
    let answer = if delayed_by == DelayedBy::ByItsMessage {
        until(ends + 300_000).await;
        assert_eq!(
            verdict_text(replica, &stack, &token.secret).await,
            "EXPIRED",
            "{case}"
        );
        late.send()
    } else {
        late.send()
    };
    if let Some(held) = held {
        until(ends + 300_000).await;
        assert_eq!(
            verdict_text(replica, &stack, &token.secret).await,
            "EXPIRED",
            "{case}"
        );
        held.commit();
    }
    let answered = answer.await.unwrap();
    let expected = if delayed_by == DelayedBy::Not {
        "OK"
    } else {
        asked.too_late()
    };
    assert_eq!(outcome(&answered), expected, "{case}");
    if delayed_by != DelayedBy::Not {
        for replica in [&cluster.a, &cluster.b] {
            assert_eq!(
                verdict_text(replica, &stack, &token.secret).await,
                "EXPIRED",
                "{case}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_over_the_expiry_is_too_late_on_every_replica() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..rounds() {
        let replica = [&cluster.a, &cluster.b][round % 2];
        for delayed_by in [
            DelayedBy::Not,
            DelayedBy::ByItsMessage,
            DelayedBy::ByTheLock,
        ] {
            let all = LateQuestion::ALL
                .map(|asked| wait_over_the_expiry(&cluster, replica, asked, delayed_by));
            join_all(all).await;
        }
    }
    println!(
        "{} rounds of 10 late calls and 5 in time: 0 wrong",
        rounds()
    );
}

/// Sets the instant of the last change of a stack, in microseconds from now. Returns this instant.
fn move_last_change(cluster: &Cluster, by: i64) -> i64 {
    let sql = format!(
        "UPDATE stacks SET last_changed_at = (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint \
         + {by} WHERE key = '{}' RETURNING last_changed_at",
        cluster.stack
    );
    let verdict_text = cluster.postgres.run(DATABASE, &sql);
    verdict_text.lines().next().unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instants_never_go_back_after_a_failover_to_a_slower_clock() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let issued = Issued::from(cluster.issue("deploy").await);
    // A former primary whose clock was ahead has left this instant.
    let last = move_last_change(&cluster, 1_500_000);
    let revoked = cluster.revoke(&issued.uid).await.unwrap().token.unwrap();
    let at = revoked.revoked_at.unwrap();
    assert_eq!(crate::support::late::micros(&at), last);

    let delayed_by = Issued::from(cluster.issue("kept").await);
    move_last_change(&cluster, 10_000_000);
    let tokens = cluster.b.owner.tokens.clone();
    let answers: [Result<(), Status>; 3] = [
        cluster.revoke(&delayed_by.uid).await.map(drop),
        tokens
            .clone()
            .set_expiry(set_expiry_request(&cluster.stack, &delayed_by.uid, never()))
            .await
            .map(drop),
        tokens
            .clone()
            .issue(issue_request(&cluster.stack, "another"))
            .await
            .map(drop),
    ];
    for answer in answers {
        assert_eq!(reason(&answer.unwrap_err()), "CLOCK_SKEW");
    }
    // The wrong instant of one stack affects neither other stacks nor verdicts.
    let other = cluster.register().await;
    let issued = tokens.clone().issue(issue_request(&other, "other")).await;
    let issued = Issued::from(issued.unwrap().into_inner());
    let revoke = revoke_request(&other, &issued.uid, "");
    tokens.clone().revoke(revoke).await.unwrap();
    cluster.a.warm(&cluster.stack, &delayed_by.secret).await;
    move_last_change(&cluster, 0);
    cluster.revoke(&delayed_by.uid).await.unwrap();
}
