//! Tests the limit on concurrent lookups in the store (`--max-readings`).

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use stacktoken::{
    app::Safeguards,
    config::Tuning,
    domain::{entropy::OsEntropy, secret::Secret},
};
use tonic::Code;

use crate::{
    cluster::{Cluster, DATABASE},
    support::{introspect_request, reason},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_beyond_the_limit_are_overloaded_and_cache_hits_are_answered() {
    let set = |tuning: &mut Tuning| {
        tuning.max_readings = 2;
        tuning.freshness_bound = Duration::from_secs(20);
    };
    let Some(cluster) = Cluster::start_with(set, Safeguards::default()).await else {
        return;
    };
    let live = cluster.issue("live").await.secret;
    cluster.b.warm(&cluster.stack, &live).await;
    cluster.b.connect(&cluster.stack).await;
    // Lookups wait for this lock. So it does not depend on the speed of the machine which calls are
    // refused.
    let lock = "LOCK TABLE token_secrets IN ACCESS EXCLUSIVE MODE";
    let held = cluster.postgres.hold(DATABASE, lock);
    let mut lookups: FuturesUnordered<_> = (0..8)
        .map(|_| {
            let unknown = Secret::generate(&OsEntropy).unwrap();
            let request = introspect_request(&cluster.stack, unknown.expose(), &[]);
            let mut service = cluster.b.service.clone();
            tokio::spawn(async move { service.introspection.introspect(request).await })
        })
        .collect();
    for _ in 0..6 {
        let refused = lookups.next().await.unwrap().unwrap().unwrap_err();
        let refused = (refused.code(), reason(&refused));
        assert_eq!(refused, (Code::Unavailable, "OVERLOADED".to_owned()));
    }
    // A verdict from the cache needs no lookup.
    for _ in 0..20 {
        let answer = cluster.b.introspect(&cluster.stack, &live).await;
        assert!(answer.unwrap().active);
    }
    held.commit();
    while let Some(answer) = lookups.next().await {
        assert!(!answer.unwrap().unwrap().into_inner().active);
    }
    let unknown = Secret::generate(&OsEntropy).unwrap();
    let answer = cluster.b.introspect(&cluster.stack, unknown.expose()).await;
    assert!(!answer.unwrap().active, "a permit was returned");
}
