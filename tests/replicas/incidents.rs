//! Tests the incident-response calls, such as `RevokeAll`, over two replicas on one PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stacktoken::grpc::pb::{audit::v1::ListRequest, v1};
use tonic::{Code, Status};

use crate::{
    cluster::{Cluster, Replica},
    support::{
        issue_request, methods, reason,
        requests::{EVERY_TOKEN, Issued, overlap_for, revoke_all_request, rotate_request},
    },
};

const BOUND: Duration = Duration::from_secs(1);

async fn revoke(
    replica: &Replica,
    stack: &str,
    hash: Option<&str>,
) -> Result<v1::RevokeAllResponse, Status> {
    let request = revoke_all_request(stack, &EVERY_TOKEN, hash);
    let answered = replica.owner.clone().tokens.revoke_all(request).await;
    answered.map(tonic::Response::into_inner)
}

async fn preview(cluster: &Cluster) -> v1::RevokeAllResponse {
    revoke(&cluster.a, &cluster.stack, None).await.unwrap()
}

/// Waits until the replica answers that the token is inactive. Asserts that this takes no longer
/// than the bound.
async fn dead_within_the_bound(replica: &Replica, stack: &str, secret: &str) {
    let acknowledged = Instant::now();
    loop {
        let begun = Instant::now();
        let answer = replica.introspect(stack, secret).await.unwrap();
        if !answer.active {
            return;
        }
        assert!(begun < acknowledged + BOUND, "active past the bound");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tokens_die_here_at_once_and_there_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.allow_tokens(1000).await;
    let mut owner = cluster.a.owner.clone();
    let mut secrets = Vec::new();
    for n in 0..1000 {
        let request = issue_request(&cluster.stack, &format!("token {n}"));
        let issued = owner.tokens.issue(request).await.unwrap();
        secrets.push(issued.into_inner().secret);
    }
    let watched: Vec<_> = secrets.iter().step_by(111).collect();
    for secret in &watched {
        cluster.a.warm(&cluster.stack, secret).await;
        cluster.b.warm(&cluster.stack, secret).await;
    }
    let shown = preview(&cluster).await;
    assert_eq!((shown.count, shown.token_uids.len()), (1000, 100));
    let begun = Instant::now();
    let hash = Some(shown.preview_hash.as_str());
    let done = revoke(&cluster.a, &cluster.stack, hash).await.unwrap();
    println!(
        "1,000 tokens revoked on PostgreSQL in {:?}",
        begun.elapsed()
    );
    assert_eq!(done.count, 1000);
    let revision = &done.revision;
    let b = &cluster.b;
    let since = b.introspect_since(&cluster.stack, watched[0], revision);
    assert!(!since.await.unwrap().active);
    dead_within_the_bound(b, &cluster.stack, watched[1]).await;
    for secret in watched {
        let here = cluster.a.introspect(&cluster.stack, secret).await;
        assert!(!here.unwrap().active);
        dead_within_the_bound(b, &cluster.stack, secret).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_calls_at_once_one_wins_and_an_issue_is_in_the_set_or_stops_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..20 {
        cluster.issue(&format!("first {round}")).await;
        let hash = preview(&cluster).await.preview_hash;
        let mut owner = cluster.b.owner.clone();
        let late = issue_request(&cluster.stack, &format!("late {round}"));
        let both = [&cluster.a, &cluster.b].map(|at| revoke(at, &cluster.stack, Some(&hash)));
        let (answers, issued) = tokio::join!(join_all(both), owner.tokens.issue(late));
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(won < 2, "round {round}");
        for status in answers.into_iter().filter_map(Result::err) {
            assert_eq!(status.code(), Code::Aborted, "{status:?}");
            assert_eq!(reason(&status), "PREVIEW_CHANGED");
        }
        let secret = issued.unwrap().into_inner().secret;
        let answer = cluster.b.introspect(&cluster.stack, &secret).await;
        assert!(
            answer.unwrap().active,
            "not in the preview, so still active"
        );
        let rest = preview(&cluster).await;
        assert_eq!(rest.count, if won == 1 { 1 } else { 2 }, "round {round}");
        let hash = Some(rest.preview_hash.as_str());
        revoke(&cluster.a, &cluster.stack, hash).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_token_with_two_secrets_a_live_one_kills_both_and_an_ended_one_neither() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for (overlap, reported, outcome) in [
        (60, "former", "REVOKED"),
        (60, "newer", "REVOKED"),
        (0, "former", "SUPERSEDED"),
    ] {
        let former = Issued::from(cluster.issue(&format!("{overlap} {reported}")).await);
        cluster.a.warm(&cluster.stack, &former.secret).await;
        let rotate = rotate_request(&cluster.stack, &former.uid, overlap_for(overlap));
        let newer = cluster.a.owner.clone().tokens.rotate(rotate).await.unwrap();
        let newer = newer.into_inner().secret;
        cluster.b.warm(&cluster.stack, &newer).await;
        let secret = if reported == "newer" {
            &newer
        } else {
            &former.secret
        };
        let report = v1::ReportLeakedRequest {
            secret: secret.clone(),
            url: "https://git.test/ann".into(),
        };
        let mut service = cluster.a.service.clone();
        service.leaks.report_leaked(report).await.unwrap();
        if outcome == "REVOKED" {
            for secret in [&former.secret, &newer] {
                dead_within_the_bound(&cluster.b, &cluster.stack, secret).await;
            }
        } else {
            cluster.a.warm(&cluster.stack, &newer).await;
            cluster.b.warm(&cluster.stack, &newer).await;
        }
        let asked = ListRequest {
            token_uids: vec![former.uid],
            methods: vec![methods::REPORT_LEAKED.into()],
            ..Default::default()
        };
        let told = cluster.b.operator.clone().audit.list(asked).await.unwrap();
        let told = told.into_inner().events;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].details["outcome"], outcome);
        assert_eq!(told[0].details["url"], "https://git.test/ann");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_token_is_dead_here_at_once_and_there_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let secret = cluster.issue("found").await.secret;
    cluster.a.warm(&cluster.stack, &secret).await;
    cluster.b.warm(&cluster.stack, &secret).await;
    let report = v1::ReportLeakedRequest {
        secret: secret.clone(),
        url: String::new(),
    };
    let mut service = cluster.a.service.clone();
    let answer = service.leaks.report_leaked(report).await.unwrap();
    assert!(answer.into_inner().accepted);
    let here = cluster.a.introspect(&cluster.stack, &secret).await;
    assert!(!here.unwrap().active);
    dead_within_the_bound(&cluster.b, &cluster.stack, &secret).await;
}
