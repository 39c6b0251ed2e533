//! One caller whose readings take long: others' readings and all verdicts find a connection.

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

/// Many times the connections of a replica.
const AT_ONCE: usize = 64;

/// Reads the audit again and again. Every second call is given up soon: what it asked the
/// database for goes on, and its connection with it.
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

/// Whoever reads the audit waits for a session that has it to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_of_one_caller_that_hang_keep_neither_lists_nor_verdicts_waiting() {
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
        // Of a secret that is not remembered.
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
