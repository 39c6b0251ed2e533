//! Tests the last use of tokens with two replicas on one PostgreSQL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use stacktoken::{
    app::Safeguards,
    domain::{
        caller::{Actor, CallerKind},
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
        id,
        timestamp::Timestamp,
    },
    store::{PoolSize, Store, Use},
};

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    proxy::Link,
    support::requests::{Issued, get_request},
};

async fn eager() -> Option<Cluster> {
    let set = |tuning: &mut stacktoken::config::Tuning| {
        tuning.usage_flush_every = Duration::from_millis(20);
    };
    Cluster::start_with(set, Safeguards::default()).await
}

fn micros(at: &prost_types::Timestamp) -> i64 {
    let at = Timestamp::from_parts(at.seconds, at.nanos).unwrap();
    at.as_micros()
}

/// Uses a token. Returns the instant of the verdict in microseconds.
async fn used(cluster: &Cluster, replica: &Replica, token: &Issued) -> i64 {
    let answer = replica.introspect(&cluster.stack, &token.secret).await;
    let answer = answer.unwrap();
    assert!(answer.active);
    micros(&answer.evaluated_at.unwrap())
}

async fn seen(cluster: &Cluster, replica: &Replica, token: &Issued) -> Option<i64> {
    let request = get_request(&cluster.stack, &token.uid);
    let seen = replica.owner.tokens.clone().get(request).await.unwrap();
    let token = seen.into_inner().token.unwrap();
    token.last_used_at.as_ref().map(micros)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_at_one_replica_is_seen_at_the_other_and_never_goes_back() {
    let Some(cluster) = eager().await else {
        return;
    };
    let token = Issued::from(cluster.issue("shared").await);
    assert_eq!(seen(&cluster, &cluster.a, &token).await, None);
    let first = used(&cluster, &cluster.a, &token).await;
    let at_b = seen(&cluster, &cluster.b, &token).await.unwrap();
    assert!(
        (first - 1_000_000..=first).contains(&at_b),
        "a first use is recorded at once"
    );
    // B has not written a use of this token in the last minute, so it writes this use at once. A
    // then reads the value from the store.
    let second = used(&cluster, &cluster.b, &token).await;
    let until = Instant::now() + Duration::from_secs(10);
    let mut latest = at_b;
    while latest < second {
        assert!(Instant::now() < until, "never seen: {latest} < {second}");
        let now = seen(&cluster, &cluster.a, &token).await.unwrap();
        assert!(now >= latest, "went back");
        latest = now;
    }
    assert_eq!(latest, second);
}

/// Waits until one more write has failed at B.
async fn failed_again(cluster: &Cluster, before: f64) {
    let until = Instant::now() + Duration::from_secs(30);
    while cluster.b.metric(FAILURES).await <= before {
        assert!(Instant::now() < until, "no write fails");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const FAILURES: &str = "stacktoken_usage_write_failures_total";
const WRITES: &str = "stacktoken_usage_writes_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_loses_no_use() {
    let set = |tuning: &mut stacktoken::config::Tuning| {
        tuning.usage_flush_every = Duration::from_secs(2);
    };
    let Some(cluster) = Cluster::start_with(set, Safeguards::default()).await else {
        return;
    };
    for round in 0..10 {
        let token = Issued::from(cluster.issue(&format!("token {round}")).await);
        used(&cluster, &cluster.a, &token).await;
        let writes = cluster.b.metric(WRITES).await;
        cluster.b.warm(&cluster.stack, &token.secret).await;
        // The control connection keeps the lease valid. The connection for calls and writes is cut.
        cluster.b.link.set(Link::Cut);
        let failures = cluster.b.metric(FAILURES).await;
        let last = used(&cluster, &cluster.b, &token).await;
        if cluster.b.metric(WRITES).await > writes {
            // B has written a use in the meantime, and the next write is due only in a minute.
            cluster.b.link.set(Link::Up);
            continue;
        }
        failed_again(&cluster, failures).await;
        assert!(seen(&cluster, &cluster.a, &token).await < Some(last));
        cluster.b.link.set(Link::Up);
        let until = Instant::now() + Duration::from_secs(30);
        while seen(&cluster, &cluster.a, &token).await < Some(last) {
            assert!(Instant::now() < until, "never written");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        return;
    }
    panic!("a write happened in between in every round");
}

/// Writers that update the same rows in opposite orders would deadlock, and PostgreSQL would roll
/// one of them back. The statement sorts the rows to prevent this.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_write_the_same_uses_at_once_never_undo_each_other() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let url = cluster.postgres.url(cluster.postgres.port(), DATABASE);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let size = PoolSize { connections: 8 };
    let location = url.parse().unwrap();
    let store = Store::open(&location, size, (clock, entropy)).await;
    let store = Arc::new(store.unwrap());
    let token = Issued::from(cluster.issue("busy").await);
    let uid = id::parse(&token.uid).unwrap();
    let at = |round: i64| Timestamp::from_micros(1_800_000_000_000_000 + round).unwrap();
    let service = |n: u32| Actor {
        kind: CallerKind::Service,
        issuer: "https://login.test".into(),
        subject: format!("service-{n}"),
    };
    let services: Vec<_> = (0..500).map(|n| Arc::new(service(n))).collect();
    for round in 0..20 {
        let writers = (0..6).map(|writer| {
            let mut uses: Vec<_> = services
                .iter()
                .map(|by| Use {
                    token: uid,
                    service: by.clone(),
                    at: at(round * 6 + writer),
                })
                .collect();
            if writer % 2 == 0 {
                uses.reverse();
            }
            let store = store.clone();
            async move { store.record_uses(&uses).await }
        });
        for done in join_all(writers).await {
            done.unwrap();
        }
    }
    let latest = seen(&cluster, &cluster.a, &token).await;
    assert_eq!(latest, Some(at(119).as_micros()));
    let deadlocks = cluster.postgres.run(
        DATABASE,
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    );
    assert_eq!(deadlocks.trim(), "0");
}
