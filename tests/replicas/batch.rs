//! Batches over two replicas: what one remembers and what it reads beside it are answered
//! together, and never is one of them older than the bound or than the revision told.

use std::time::{Duration, Instant};

use stacktoken::{
    app::Safeguards,
    domain::{entropy::OsEntropy, secret::Secret},
    grpc::pb::v1,
};
use tokio::time::sleep;
use tonic::{Code, Response, Status};

use crate::{
    cluster::{Cluster, Replica},
    control::assert_shows,
    proxy::Link,
    support::{reason, requests::batch_request},
};

const BOUND: Duration = Duration::from_secs(1);

async fn ask(
    replica: &Replica,
    request: v1::BatchIntrospectRequest,
) -> Result<v1::BatchIntrospectResponse, Status> {
    let mut service = replica.service.introspection.clone();
    let answered = service.batch_introspect(request).await;
    answered.map(Response::into_inner)
}

fn active(response: &v1::BatchIntrospectResponse) -> Vec<bool> {
    response
        .answers
        .iter()
        .map(|answer| answer.active)
        .collect()
}

/// How far in the history a revision is.
fn position(revision: &str) -> i64 {
    i64::from_str_radix(&revision[16..], 16).unwrap()
}

/// A token that B remembers, and its id.
async fn remembered(cluster: &Cluster, name: &str) -> (String, String) {
    let issued = cluster.issue(name).await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    (issued.secret, issued.token.unwrap().token_uid)
}

/// Revokes at A a token that B remembers, and asks B for a while, about it and others at once.
/// How often B said active in a call begun later than the bound, and what it refused with.
async fn ask_behind_a_black_hole(cluster: &Cluster) -> (usize, Vec<String>) {
    let (live, _) = remembered(cluster, "live").await;
    let (dead, uid) = remembered(cluster, "dead").await;
    let cold = cluster.issue("cold").await.secret;
    let held = batch_request(&cluster.stack, &[&live, &dead, "junk"]);
    let mixed = batch_request(&cluster.stack, &[&live, &dead, &cold]);
    cluster.b.links(Link::BlackHole);
    cluster.revoke(&uid).await.unwrap();
    let revoked = Instant::now();
    let (mut stale, mut refused) = (0, Vec::new());
    while revoked.elapsed() < 3 * BOUND {
        let begun = Instant::now();
        // The second waits for the store for as long as the bound.
        for request in [&held, &mixed] {
            match ask(&cluster.b, request.clone()).await {
                Ok(response) => {
                    let late = begun > revoked + BOUND;
                    stale += usize::from(active(&response)[1] && late);
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    refused.push(reason(&status));
                }
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    cluster.b.links(Link::Up);
    let mended = Instant::now();
    loop {
        let begun = Instant::now();
        match ask(&cluster.b, mixed.clone())
            .await
            .as_ref()
            .map(active)
            .as_deref()
        {
            Ok([true, false, true]) => break,
            Ok([true, true, true]) => stale += usize::from(begun > revoked + BOUND),
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
        assert!(mended.elapsed() < Duration::from_secs(10), "no recovery");
        sleep(Duration::from_millis(20)).await;
    }
    (stale, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_a_batch_is_refused_whole_rather_than_stale() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (stale, refused) = ask_behind_a_black_hole(&cluster).await;
    assert_eq!(stale, 0);
    assert!(!refused.is_empty());
    for reason in refused {
        assert!(
            ["NOT_FRESH", "STORE_UNAVAILABLE"].contains(&reason.as_str()),
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lease_a_batch_behind_a_black_hole_is_stale() {
    let without = Safeguards {
        lease: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        ask_behind_a_black_hole(cluster).await.0 > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_is_in_every_batch_begun_past_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (live, _) = remembered(&cluster, "live").await;
    cluster.allow_tokens(1000).await;
    for round in 0..20 {
        let (dead, uid) = remembered(&cluster, &format!("dead {round}")).await;
        let cold = cluster.issue(&format!("cold {round}")).await.secret;
        let request = batch_request(&cluster.stack, &[&live, &dead, &cold]);
        let done = cluster.revoke(&uid).await.unwrap();
        let revoked = Instant::now();
        let since = v1::BatchIntrospectRequest {
            min_revision: done.revision,
            ..request.clone()
        };
        let response = ask(&cluster.b, since).await.unwrap();
        assert_eq!(
            active(&response),
            [true, false, true],
            "asked to reflect it"
        );
        loop {
            let begun = Instant::now();
            let response = ask(&cluster.b, request.clone()).await.unwrap();
            match active(&response)[..] {
                [true, false, true] => break,
                [true, true, true] => assert!(begun <= revoked + BOUND, "stale"),
                ref other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_of_a_batch_is_the_oldest_that_its_answers_reflect() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (doomed, uid) = remembered(&cluster, "doomed").await;
    // B hears late of what happens at A, but not later than the bound.
    let late = Link::Slow(Duration::from_millis(400));
    cluster.b.control_link.set(late);
    let mut checked = 0;
    for round in 0..20 {
        let (doomed, uid) = match round {
            0 => (doomed.clone(), uid.clone()),
            _ => remembered(&cluster, &format!("doomed {round}")).await,
        };
        let cold = cluster.issue(&format!("cold {round}")).await;
        let revoked = cluster.revoke(&uid).await.unwrap();
        let request = batch_request(&cluster.stack, &[&doomed, &cold.secret]);
        let response = ask(&cluster.b, request).await.unwrap();
        let told = position(&response.revision);
        if active(&response)[0] {
            assert!(told < position(&revoked.revision), "{response:?}");
            checked += 1;
        }
        for answer in &response.answers {
            assert_eq!(answer.revision, response.revision);
        }
        let cold_uid = cold.token.unwrap().token_uid;
        cluster.revoke(&cold_uid).await.unwrap();
        if checked == 3 {
            return;
        }
    }
    panic!("B always heard at once: nothing was checked");
}

/// Has B prepare the statement of a batch on its connections: a slow link then delays one
/// answer, not two.
async fn prepare(cluster: &Cluster) {
    let asked = (0..64).map(|_| async {
        let unknown = Secret::generate(&OsEntropy).unwrap();
        let request = batch_request(&cluster.stack, &[unknown.expose()]);
        ask(&cluster.b, request).await.unwrap();
    });
    futures_util::future::join_all(asked).await;
}

/// Revokes a token that B remembers, and before B hears of it has B answer for it beside one
/// that takes long to read. Whether it was active, and how long after the revoke; `None`
/// where B could not tell.
async fn ask_beside_a_slow_reading(cluster: &Cluster, round: usize) -> Option<(bool, Duration)> {
    let (doomed, uid) = remembered(cluster, &format!("doomed {round}")).await;
    let cold = cluster.issue(&format!("cold {round}")).await.secret;
    prepare(cluster).await;
    // B hears no earlier than after 300 ms, and reads for 850.
    let hears = Link::Slow(Duration::from_millis(300));
    cluster.b.control_link.set(hears);
    sleep(Duration::from_millis(700)).await;
    cluster.b.link.set(Link::Slow(Duration::from_millis(850)));
    cluster.revoke(&uid).await.unwrap();
    let revoked = Instant::now();
    sleep(Duration::from_millis(250)).await;
    let request = batch_request(&cluster.stack, &[&doomed, &cold]);
    let mut service = cluster.b.service.introspection.clone();
    let asked = tokio::spawn(async move { service.batch_introspect(request).await });
    // The reading under way stays slow; one after it does not.
    sleep(Duration::from_millis(500)).await;
    cluster.b.link.set(Link::Up);
    let answered = asked.await.unwrap();
    let took = revoked.elapsed();
    cluster.b.links(Link::Up);
    match answered {
        Ok(response) => {
            let active = active(response.get_ref());
            assert!(active[1], "{active:?}");
            Some((active[0], took))
        }
        Err(status) => {
            println!("could not tell: {} after {took:?}", reason(&status));
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_remembered_does_not_outlast_its_lease_beside_a_slow_reading() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.allow_tokens(100).await;
    for round in 0..10 {
        let Some((active, took)) = ask_beside_a_slow_reading(&cluster, round).await else {
            continue;
        };
        assert!(took > BOUND, "the links were not slow: {took:?}");
        assert!(!active, "active {took:?} after it was revoked");
        return;
    }
    panic!("B never could tell");
}
