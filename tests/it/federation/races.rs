//! Tests exchanges at the same time. `tests/replicas/federation.rs` tests the same on PostgreSQL,
//! with two replicas.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use super::live;
use crate::support::{
    Client, TestServer,
    federated::{exchange_request, job, rounds},
    reason,
};

/// Exchanges an assertion, and tries again as long as the queue of the stack is full.
async fn exchange(
    mut workload: Client,
    request: v1::ExchangeRequest,
) -> Result<v1::ExchangeResponse, Status> {
    loop {
        match workload.exchange.exchange(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            answered => return answered.map(tonic::Response::into_inner),
        }
    }
}

async fn at_once(
    server: &TestServer,
    uid: &str,
    all: Vec<Value>,
) -> Vec<Result<v1::ExchangeResponse, Status>> {
    let mut running = Vec::new();
    for claims in all {
        let workload = server.workload(&claims).await;
        let request = exchange_request(&server.stack, uid);
        running.push(tokio::spawn(exchange(workload, request)));
    }
    let mut answers = Vec::new();
    for each in running {
        answers.push(each.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_assertion_exchanged_64_times_at_once_has_one_live_secret() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    for _ in 0..rounds(5) {
        let claims = job(server.clock.seconds(), json!({}));
        let answers = at_once(&server, &uid, vec![claims; 64]).await;
        let mut active = 0;
        for answer in answers {
            let secret = answer.unwrap().secret;
            active += usize::from(server.inactive(&secret).await.is_empty());
        }
        assert_eq!(active, 1);
        assert_eq!(live(&server, &uid).await, 1);
        let end = super::end(&server, &uid, "");
        server.owner().await.tokens.end_sessions(end).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_100_exactly_100_of_200_exchanges_succeed() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    for _ in 0..rounds(3) {
        let runs = (0..200).map(|run| job(now, json!({ "run_id": run.to_string() })));
        let answers = at_once(&server, &uid, runs.collect()).await;
        let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (100, 100));
        let reasons: BTreeSet<_> = refused
            .into_iter()
            .map(|answer| reason(&answer.unwrap_err()))
            .collect();
        assert_eq!(reasons, BTreeSet::from(["SESSION_LIMIT".to_owned()]));
        assert_eq!(live(&server, &uid).await, 100);
        let end = super::end(&server, &uid, "");
        server.owner().await.tokens.end_sessions(end).await.unwrap();
        assert_eq!(live(&server, &uid).await, 0);
    }
}
