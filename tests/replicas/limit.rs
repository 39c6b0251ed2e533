//! Tests the limit on live tokens when calls race at two replicas (R6).

use tonic::Code;

use crate::{
    cluster::Cluster,
    support::{issue_request, reason},
};

fn rounds() -> usize {
    std::env::var("STACKTOKEN_TEST_ROUNDS").map_or(10, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_parallel_issues_over_two_replicas_exactly_10_succeed() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..rounds() {
        let stack = cluster.register().await;
        let issues = (0..64).map(|at| {
            let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
            let (mut owner, request) = (
                replica.owner.clone(),
                issue_request(&stack, &format!("token {at}")),
            );
            async move { owner.tokens.issue(request).await }
        });
        let done = futures_util::future::join_all(issues).await;
        let (issued, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        for status in refused.into_iter().filter_map(Result::err) {
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::ResourceExhausted, "TOKEN_LIMIT_REACHED"),
                "{status:?}"
            );
        }
        assert_eq!(issued.len(), 10, "round {round}");
    }
}
