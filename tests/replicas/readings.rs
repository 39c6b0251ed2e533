//! How many readings of the store there may be at once (`--max-readings`).

use std::time::Duration;

use stacktoken::{
    app::Safeguards,
    config::Tuning,
    domain::{entropy::OsEntropy, secret::Secret},
};
use tonic::Code;

use crate::{
    cluster::Cluster,
    proxy::Link,
    support::{introspect_request, reason},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_beyond_the_limit_are_overloaded_and_what_is_remembered_is_answered() {
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
    cluster.b.link.set(Link::Slow(Duration::from_millis(400)));
    let asked = (0..8).map(|_| {
        let unknown = Secret::generate(&OsEntropy).unwrap();
        let request = introspect_request(&cluster.stack, unknown.expose(), &[]);
        let mut service = cluster.b.service.clone();
        tokio::spawn(async move { service.introspection.introspect(request).await })
    });
    let asked: Vec<_> = asked.collect();
    // Two of them are being read, for as long as the answer takes; what is remembered needs no reading.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..20 {
        let answer = cluster.b.introspect(&cluster.stack, &live).await;
        assert!(answer.unwrap().active);
    }
    let mut answered = 0;
    for asked in asked {
        match asked.await.unwrap() {
            Ok(answer) => {
                assert!(!answer.into_inner().active);
                answered += 1;
            }
            Err(status) => {
                let told = (status.code(), reason(&status));
                assert_eq!(told, (Code::Unavailable, "OVERLOADED".to_owned()));
            }
        }
    }
    assert_eq!(answered, 2);
    cluster.b.link.set(Link::Up);
    let unknown = Secret::generate(&OsEntropy).unwrap();
    let answer = cluster.b.introspect(&cluster.stack, unknown.expose()).await;
    assert!(!answer.unwrap().active, "there is room again");
}
