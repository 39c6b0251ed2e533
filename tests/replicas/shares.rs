//! Tests that one caller whose reads take long does not prevent other reads or verdicts from
//! getting a connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::{
    domain::{entropy::OsEntropy, secret::Secret},
    grpc::pb::audit::v1::ListRequest,
};
use tokio::{task::JoinSet, time::sleep};
use tonic::Request;

use crate::{
    cluster::{Cluster, DATABASE},
    support::{Client, requests::list_request},
};

/// The number of concurrent reads, which is many times the number of connections of a replica.
const AT_ONCE: usize = 64;

/// Starts callers that read the audit continuously. Every second call has a short timeout, but its
/// query continues in the database and keeps its connection.
fn greedy(operator: &Client) -> JoinSet<()> {
    let mut attack = JoinSet::new();
    for number in 0..AT_ONCE {
        let mut operator = operator.clone();
        attack.spawn(async move {
            loop {
                let mut request = Request::new(ListRequest::default());
                if number % 2 == 0 {
                    request.set_timeout(Duration::from_millis(50));
                }
                let _ = operator.audit.list(request).await;
                sleep(Duration::from_millis(5)).await;
            }
        });
    }
    attack
}

/// A transaction holds a lock on the audit table, so that every read of the table waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_reads_of_one_caller_delay_neither_lists_nor_verdicts() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let replica = Arc::new(&cluster.a);
    replica.connect(&cluster.stack).await;
    let held = cluster.postgres.hold(DATABASE, "LOCK TABLE audit_events");
    let attack = greedy(&replica.operator);
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let (mut lists, mut verdicts) = ((0, 0), (0, 0));
    while began.elapsed() < Duration::from_secs(4) {
        let mut owner = replica.owner.clone();
        let listed = owner.tokens.list(list_request(&cluster.stack)).await;
        lists = (lists.0 + usize::from(listed.is_ok()), lists.1 + 1);
        // This secret is unknown and not cached, so it needs a lookup.
        let unknown = Secret::generate(&OsEntropy).unwrap();
        let judged = replica.introspect(&cluster.stack, unknown.expose()).await;
        verdicts = (verdicts.0 + usize::from(judged.is_ok()), verdicts.1 + 1);
        sleep(Duration::from_millis(20)).await;
    }
    drop(attack);
    held.commit();
    println!("lists {lists:?}, verdicts that needed the store {verdicts:?}");
    assert!(lists.0 * 10 >= lists.1 * 9, "lists {lists:?}");
    assert!(verdicts.0 * 100 >= verdicts.1 * 99, "verdicts {verdicts:?}");
}
