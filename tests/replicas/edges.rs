//! Tests extreme values of fields on PostgreSQL, with the scripts that `tests/it/edges.rs` uses.

use tonic::{Code, transport::Endpoint};

use crate::{
    cluster::Cluster,
    support::{
        Client,
        edges::{self, Callers},
        reason,
        requests::list_request,
    },
};

async fn callers(cluster: &Cluster) -> Callers {
    Callers {
        owner: cluster.a.owner.clone(),
        operator: cluster.a.operator.clone(),
        stacks: [cluster.stack.clone(), cluster.register().await],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_of_anything_else_is_refused_on_postgresql_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    edges::page_tokens(callers(&cluster).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_person_is_refused_on_postgresql_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    edges::identities(callers(&cluster).await).await;
    // The caller has the longest valid subject, so that every column that stores a caller gets it.
    let (_, longest) = edges::subjects();
    let now = stacktoken::domain::clock::Clock::now(cluster.a.clock.as_ref()).seconds();
    let jwt = cluster.issuer.sign(&edges::claims_of(&longest, now));
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.a.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut stranger = Client::new(channel, Some(format!("Bearer {jwt}")));
    let status = stranger.tokens.list(list_request(&cluster.stack)).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "STACK_NOT_FOUND")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_look_the_same_are_the_same_on_postgresql_too() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    edges::names(callers(&cluster).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_registrations_of_one_key_at_two_replicas_at_once_one_succeeds() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let operators = [cluster.a.operator.clone(), cluster.b.operator.clone()];
    edges::registrations(&operators).await;
}
