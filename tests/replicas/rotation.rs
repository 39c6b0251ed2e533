//! Tests rotation and repeated calls over two replicas on one PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stacktoken::grpc::pb::{
    audit::v1::{AuditEventKind, ListRequest},
    v1::{self, Overlap},
};
use tonic::Code;

use crate::{
    cluster::{Cluster, Replica},
    support::{
        issue_request,
        requests::{
            Issued, UNTIL_FIRST_USE, end_overlap_request, get_request, overlap_for, rotate_request,
        },
    },
};

const BOUND: Duration = Duration::from_secs(1);

fn replica(cluster: &Cluster, at: usize) -> &Replica {
    if at.is_multiple_of(2) {
        &cluster.a
    } else {
        &cluster.b
    }
}

async fn rotated(cluster: &Cluster, uid: &str, overlap: Overlap) -> v1::RotateResponse {
    let request = rotate_request(&cluster.stack, uid, overlap);
    let answer = cluster.a.owner.clone().tokens.rotate(request).await;
    answer.unwrap().into_inner()
}

async fn first_uses(cluster: &Cluster, uid: &str) -> usize {
    let request = ListRequest {
        stack_api_key: cluster.stack.clone(),
        token_uids: vec![uid.into()],
        kinds: vec![AuditEventKind::FirstUse.into()],
        ..Default::default()
    };
    let answer = cluster.a.operator.clone().audit.list(request).await;
    answer.unwrap().into_inner().events.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_50_first_uses_over_two_replicas_one_is_recorded_and_both_apply_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..5 {
        let issued = Issued::from(cluster.issue(&format!("token {round}")).await);
        for replica in [&cluster.a, &cluster.b] {
            replica.warm(&cluster.stack, &issued.secret).await;
        }
        let newer = rotated(&cluster, &issued.uid, UNTIL_FIRST_USE).await;
        let asked = (0..50).map(|at| {
            let replica = replica(&cluster, at);
            replica.introspect(&cluster.stack, &newer.secret)
        });
        let answers = join_all(asked).await;
        let acknowledged = Instant::now();
        assert!(answers.into_iter().all(|answer| answer.unwrap().active));
        assert_eq!(first_uses(&cluster, &issued.uid).await, 1);
        for replica in [&cluster.a, &cluster.b] {
            loop {
                let answer = replica.introspect(&cluster.stack, &issued.secret).await;
                let answer = answer.unwrap();
                if !answer.active {
                    assert_eq!(answer.reason(), v1::Reason::Superseded);
                    break;
                }
                assert!(acknowledged.elapsed() <= BOUND, "active past the bound");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_that_one_replica_ended_is_over_at_the_other_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..5 {
        let issued = Issued::from(cluster.issue(&format!("token {round}")).await);
        let newer = rotated(&cluster, &issued.uid, overlap_for(3600)).await;
        for replica in [&cluster.a, &cluster.b] {
            replica.warm(&cluster.stack, &issued.secret).await;
            replica.warm(&cluster.stack, &newer.secret).await;
        }
        let end = end_overlap_request(&cluster.stack, &issued.uid);
        let mut owner = cluster.a.owner.clone();
        owner.tokens.end_overlap(end).await.unwrap();
        let acknowledged = Instant::now();
        let own = cluster.a.introspect(&cluster.stack, &issued.secret).await;
        assert_eq!(own.unwrap().reason(), v1::Reason::Superseded);
        loop {
            let asked = Instant::now();
            let other = cluster.b.introspect(&cluster.stack, &issued.secret).await;
            if !other.unwrap().active {
                break;
            }
            assert!(asked - acknowledged <= BOUND, "active past the bound");
        }
        for replica in [&cluster.a, &cluster.b] {
            let answer = replica.introspect(&cluster.stack, &newer.secret).await;
            assert!(answer.unwrap().active);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_recorded_a_first_use_never_answers_the_former_secret_after() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..20 {
        let issued = Issued::from(cluster.issue(&format!("token {round}")).await);
        let newer = rotated(&cluster, &issued.uid, UNTIL_FIRST_USE).await;
        let replica = replica(&cluster, round);
        replica.warm(&cluster.stack, &issued.secret).await;
        let used = replica.introspect(&cluster.stack, &newer.secret).await;
        let former = replica.introspect(&cluster.stack, &issued.secret).await;
        assert!(
            used.unwrap().active && !former.unwrap().active,
            "round {round}"
        );
        let request = v1::RevokeRequest {
            stack_api_key: cluster.stack.clone(),
            token_uid: issued.uid,
            reason: String::new(),
            validate_only: false,
            etag: String::new(),
        };
        let mut owner = cluster.a.owner.clone();
        owner.tokens.revoke(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_50_repetitions_over_two_replicas_one_token_with_one_live_secret_is_left() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..3 {
        let request = v1::IssueRequest {
            request_id: format!("round-{round}"),
            ..issue_request(&cluster.stack, &format!("token {round}"))
        };
        let issues = (0..50).map(|at| {
            let (mut owner, request) = (replica(&cluster, at).owner.clone(), request.clone());
            // There are more calls than connections in a pool, so some calls are refused and try
            // again.
            async move {
                loop {
                    match owner.tokens.issue(request.clone()).await {
                        Ok(issued) => return issued.into_inner(),
                        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                    }
                }
            }
        });
        let issued: Vec<_> = join_all(issues)
            .await
            .into_iter()
            .map(Issued::from)
            .collect();
        assert!(issued.iter().all(|token| token.uid == issued[0].uid));
        let asked = issued
            .iter()
            .map(|token| cluster.b.introspect(&cluster.stack, &token.secret));
        let answers = join_all(asked).await;
        let live = answers
            .into_iter()
            .filter(|answer| answer.as_ref().unwrap().active);
        assert_eq!(live.count(), 1, "round {round}");
        let mut owner = cluster.a.owner.clone();
        let seen = owner
            .tokens
            .get(get_request(&cluster.stack, &issued[0].uid))
            .await;
        assert_eq!(seen.unwrap().into_inner().token.unwrap().generation, 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_and_first_uses_at_once_never_wait_for_each_other_for_long() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let issued = Issued::from(cluster.issue("busy").await);
    // There are fewer calls than connections in a pool, so none is refused.
    let calls = (0..24).map(|at| {
        let replica = replica(&cluster, at);
        let (stack, uid) = (cluster.stack.clone(), issued.uid.clone());
        let overlap = match at % 3 {
            0 => overlap_for(3600),
            1 => overlap_for(0),
            _ => UNTIL_FIRST_USE,
        };
        async move {
            let mut owner = replica.owner.clone();
            let rotated = owner
                .tokens
                .rotate(rotate_request(&stack, &uid, overlap))
                .await;
            let secret = rotated.unwrap().into_inner().secret;
            // The secret may be superseded by now, so the verdict may be either, but the call must
            // not fail.
            replica.introspect(&stack, &secret).await.unwrap();
        }
    });
    join_all(calls).await;
    let mut owner = cluster.a.owner.clone();
    let seen = owner
        .tokens
        .get(get_request(&cluster.stack, &issued.uid))
        .await;
    assert_eq!(seen.unwrap().into_inner().token.unwrap().generation, 25);
}
