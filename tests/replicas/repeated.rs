//! Tests concurrent calls with one idempotency key at two replicas. One call is executed, and all
//! get the same response.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use stacktoken::{
    app::Safeguards,
    config::Tuning,
    grpc::pb::{admin::v1::RegisterRequest, v1},
};

use crate::{
    cluster::Cluster,
    proxy::Link,
    support::{
        issue_request, person,
        requests::{
            EVERY_TOKEN, end_overlap_request, overlap_for, revoke_all_request, rotate_request,
        },
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_registrations_with_one_id_at_once_one_is_made_and_all_answer_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for (round, key) in ["", "blt00000000000000a1"].into_iter().enumerate() {
        let request = RegisterRequest {
            stack_api_key: key.into(),
            name: "Shop".into(),
            organization_uid: format!("repeated-{round}"),
            owner: Some(person("owner")),
            request_id: format!("round-{round}"),
            ..Default::default()
        };
        let calls = (0..16).map(|at| {
            let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
            let (mut operator, request) = (replica.operator.clone(), request.clone());
            async move { operator.stacks.register(request).await }
        });
        let answers = join_all(calls).await.into_iter();
        let answers = answers.map(|answer| answer.unwrap().into_inner());
        let made: BTreeSet<_> = answers
            .map(|answer| (answer.stack.unwrap().stack_api_key, answer.revision))
            .collect();
        assert_eq!(made.len(), 1, "{made:?}");
        let count =
            format!("SELECT count(*) FROM stacks WHERE organization_uid = 'repeated-{round}'");
        assert_eq!(
            cluster
                .postgres
                .run(crate::cluster::DATABASE, &count)
                .trim(),
            "1"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_revocations_with_one_id_at_once_one_is_made_and_all_answer_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let mut owner = cluster.a.owner.clone();
    for n in 0..4 {
        let request = issue_request(&cluster.stack, &format!("token {n}"));
        owner.tokens.issue(request).await.unwrap();
    }
    let shown = revoke_all_request(&cluster.stack, &EVERY_TOKEN, None);
    let shown = owner.tokens.revoke_all(shown).await.unwrap().into_inner();
    let request = v1::RevokeAllRequest {
        request_id: "incident-7".into(),
        ..revoke_all_request(&cluster.stack, &EVERY_TOKEN, Some(&shown.preview_hash))
    };
    let calls = (0..8).map(|at| {
        let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
        let (mut owner, request) = (replica.owner.clone(), request.clone());
        async move { owner.tokens.revoke_all(request).await }
    });
    let answers = join_all(calls).await.into_iter();
    let mut answers: Vec<_> = answers.map(|answer| answer.unwrap().into_inner()).collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].count, 4);
    assert!(!answers[0].revision.is_empty());
}

/// Starts a cluster whose leases are valid for a minute. With its control link cut, B does not learn
/// of the changes of A for that long.
async fn start_unhurried() -> Option<Cluster> {
    let set = |tuning: &mut Tuning| tuning.freshness_bound = Duration::from_secs(60);
    Cluster::start_with(set, Safeguards::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_overlap_repeated_at_another_replica_is_in_effect_there() {
    let Some(cluster) = start_unhurried().await else {
        return;
    };
    let issued = cluster.issue("rotated").await;
    let (former, uid) = (issued.secret, issued.token.unwrap().token_uid);
    let [mut a, mut b] = [&cluster.a, &cluster.b].map(|replica| replica.owner.tokens.clone());
    let rotate = rotate_request(&cluster.stack, &uid, overlap_for(3600));
    a.rotate(rotate).await.unwrap();
    cluster.b.warm(&cluster.stack, &former).await;
    cluster.b.control_link.set(Link::BlackHole);
    let end = end_overlap_request(&cluster.stack, &uid);
    a.end_overlap(end.clone()).await.unwrap();
    let cached = cluster.b.introspect(&cluster.stack, &former).await;
    assert!(cached.unwrap().active, "B has learned of the change");
    b.end_overlap(end).await.unwrap();
    let answer = cluster.b.introspect(&cluster.stack, &former).await;
    assert!(!answer.unwrap().active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_of_all_that_finds_none_left_is_in_effect_there() {
    let Some(cluster) = start_unhurried().await else {
        return;
    };
    let issued = cluster.issue("leaked").await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    cluster.b.control_link.set(Link::BlackHole);
    let uid = issued.token.unwrap().token_uid;
    cluster.revoke(&uid).await.unwrap();
    let cached = cluster.b.introspect(&cluster.stack, &issued.secret).await;
    assert!(cached.unwrap().active, "B has learned of the change");
    let mut owner = cluster.b.owner.clone();
    let shown = revoke_all_request(&cluster.stack, &EVERY_TOKEN, None);
    let shown = owner.tokens.revoke_all(shown).await.unwrap().into_inner();
    let request = revoke_all_request(&cluster.stack, &EVERY_TOKEN, Some(&shown.preview_hash));
    let revoked = owner.tokens.revoke_all(request).await.unwrap().into_inner();
    assert_eq!(revoked.count, 0);
    let answer = cluster.b.introspect(&cluster.stack, &issued.secret).await;
    assert!(!answer.unwrap().active);
}
