//! Rotation and repeated requests over two replicas on one PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stacktoken::grpc::pb::{
    audit::v1::{AuditAction, ListRequest},
    v1::{self, rotate_request::Overlap},
};
use tonic::Code;

use crate::{
    cluster::{Cluster, Replica},
    support::{
        issue_request,
        requests::{Issued, get_request, overlap_for, rotate_request},
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
        token_uid: uid.into(),
        action: AuditAction::TokenFirstUse.into(),
        ..Default::default()
    };
    let answer = cluster.a.operator.clone().audit.list(request).await;
    answer.unwrap().into_inner().events.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_50_first_uses_over_two_replicas_one_is_recorded_and_both_hear_of_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..5 {
        let issued = Issued::from(cluster.issue(&format!("token {round}")).await);
        for replica in [&cluster.a, &cluster.b] {
            replica.warm(&cluster.stack, &issued.secret).await;
        }
        let newer = rotated(&cluster, &issued.uid, Overlap::UntilFirstUse(true)).await;
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
async fn the_replica_that_recorded_a_first_use_never_answers_the_former_secret_after() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..20 {
        let issued = Issued::from(cluster.issue(&format!("token {round}")).await);
        let newer = rotated(&cluster, &issued.uid, Overlap::UntilFirstUse(true)).await;
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
            // More than a pool has connections, so some are told to come again, as clients do.
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
    // Fewer than a pool has connections: beyond that, calls are told to come again.
    let calls = (0..24).map(|at| {
        let replica = replica(&cluster, at);
        let (stack, uid) = (cluster.stack.clone(), issued.uid.clone());
        let overlap = match at % 3 {
            0 => overlap_for(3600),
            1 => overlap_for(0),
            _ => Overlap::UntilFirstUse(true),
        };
        async move {
            let mut owner = replica.owner.clone();
            let rotated = owner
                .tokens
                .rotate(rotate_request(&stack, &uid, overlap))
                .await;
            let secret = rotated.unwrap().into_inner().secret;
            // Superseded by then or not: either is an answer, and neither is an error.
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
