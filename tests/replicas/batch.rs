//! Tests batches over two replicas. A response may combine cached and looked-up answers, and none
//! of them is older than the freshness bound or than `min_revision`.

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
    support::{
        reason,
        requests::{answers, batch_request, outcomes, results},
    },
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

/// Returns for each answer in a batch whether it is active. Panics if a question failed.
fn active(response: &v1::BatchIntrospectResponse) -> Vec<bool> {
    let answers = answers(response).into_iter();
    answers.map(|answer| answer.active).collect()
}

/// Returns the position in the change log that a revision contains.
fn position(revision: &str) -> i64 {
    i64::from_str_radix(&revision[16..], 16).unwrap()
}

/// Issues a token and makes B cache it. Returns the token's secret and id.
async fn cached_at_b(cluster: &Cluster, name: &str) -> (String, String) {
    let issued = cluster.issue(name).await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    (issued.secret, issued.token.unwrap().token_uid)
}

/// Makes B cache two tokens, lets all of B's packets to the database be dropped, and revokes one of
/// the tokens at A. Then asks B about it in batches, for three times the freshness bound. Returns how
/// often B answered "active" to a call that began more than the bound after the revoke, and the
/// reasons for B's refusals.
async fn ask_behind_a_black_hole(cluster: &Cluster) -> (usize, Vec<String>) {
    let (live, _) = cached_at_b(cluster, "live").await;
    let (dead, uid) = cached_at_b(cluster, "dead").await;
    let cold = cluster.issue("cold").await.secret;
    let held = batch_request(&cluster.stack, &[&live, &dead, "junk"]);
    let mixed = batch_request(&cluster.stack, &[&live, &dead, &cold]);
    cluster.b.links(Link::BlackHole);
    cluster.revoke(&uid).await.unwrap();
    let revoked = Instant::now();
    let (mut stale, mut refused) = (0, Vec::new());
    while revoked.elapsed() < 3 * BOUND {
        let begun = Instant::now();
        // The second request needs the store, so it waits for as long as the bound.
        for request in [&held, &mixed] {
            let response = ask(&cluster.b, request.clone()).await.unwrap();
            let late = begun > revoked + BOUND;
            let results = results(&response);
            let seen = results[1].as_ref();
            stale += usize::from(seen.is_ok_and(|answer| answer.active) && late);
            for status in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                refused.push(reason(status));
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    cluster.b.links(Link::Up);
    let mended = Instant::now();
    loop {
        let begun = Instant::now();
        let response = ask(&cluster.b, mixed.clone()).await.unwrap();
        let seen = outcomes(&response);
        if seen == ["OK", "REVOKED", "OK"] {
            break;
        }
        stale += usize::from(seen[1] == "OK" && begun > revoked + BOUND);
        let known = ["OK", "REVOKED"];
        let odd = |one: &String| !known.contains(&one.as_str()) && !one.starts_with("Unavailable ");
        assert!(!seen.iter().any(odd), "{seen:?}");
        assert!(
            mended.elapsed() < Duration::from_secs(10),
            "no recovery within 10 s"
        );
        sleep(Duration::from_millis(20)).await;
    }
    (stale, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_no_question_of_a_batch_is_answered_stale() {
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
    let (live, _) = cached_at_b(&cluster, "live").await;
    cluster.allow_tokens(1000).await;
    for round in 0..20 {
        let (dead, uid) = cached_at_b(&cluster, &format!("dead {round}")).await;
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
            "every answer reflects min_revision"
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
async fn one_bad_question_of_a_batch_refuses_no_other() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (held, _) = cached_at_b(&cluster, "held").await;
    let cold = cluster.issue("cold").await.secret;
    let mut request = batch_request(&cluster.stack, &[&held, "", &cold, &held, &cold]);
    request.questions[2].actions = vec![v1::ActionQuestion::default()];
    request.questions[3].stack_api_key = "x".repeat(1_000);
    let response = ask(&cluster.b, request.clone()).await.unwrap();
    let invalid = "InvalidArgument INVALID_FIELD";
    let unknown = "NOT_RECOGNIZED";
    assert_eq!(outcomes(&response), ["OK", unknown, invalid, unknown, "OK"]);
    // Without the store, cached facts are used as long as the lease holds.
    let another = cluster.issue("another").await.secret;
    request.questions[4].token = another;
    let (held, _) = cached_at_b(&cluster, "held on").await;
    request.questions[0].token = held;
    cluster.b.link.set(Link::Cut);
    let response = ask(&cluster.b, request).await.unwrap();
    let seen = outcomes(&response);
    assert_eq!(seen[1..4], [unknown, invalid, unknown]);
    assert!(seen[4].starts_with("Unavailable "), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_of_a_batch_is_the_oldest_that_its_answers_reflect() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (doomed, uid) = cached_at_b(&cluster, "doomed").await;
    // B applies A's changes late, but still within the freshness bound.
    let late = Link::Slow(Duration::from_millis(400));
    cluster.b.control_link.set(late);
    let mut checked = 0;
    for round in 0..20 {
        let (doomed, uid) = match round {
            0 => (doomed.clone(), uid.clone()),
            _ => cached_at_b(&cluster, &format!("doomed {round}")).await,
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
        for answer in answers(&response) {
            assert_eq!(answer.revision, response.revision);
        }
        let cold_uid = cold.token.unwrap().token_uid;
        cluster.revoke(&cold_uid).await.unwrap();
        if checked == 3 {
            return;
        }
    }
    panic!("B always applied the revoke at once: nothing was checked");
}

/// Prepares the statement for a batch on B's connections, so that later a slow link delays a batch
/// by only one round trip, not by two.
async fn prepare(cluster: &Cluster) {
    let asked = (0..64).map(|_| async {
        let unknown = Secret::generate(&OsEntropy).unwrap();
        let request = batch_request(&cluster.stack, &[unknown.expose()]);
        ask(&cluster.b, request).await.unwrap();
    });
    futures_util::future::join_all(asked).await;
}

/// Makes B cache a token and revokes it. Before B applies the revoke, asks B about this token in a
/// batch with another token whose lookup is slow. Returns whether the answer was "active" and how
/// long after the revoke it came, or `None` if the run proves nothing.
async fn ask_beside_a_slow_lookup(cluster: &Cluster, round: usize) -> Option<(bool, Duration)> {
    let (doomed, uid) = cached_at_b(cluster, &format!("doomed {round}")).await;
    let cold = cluster.issue(&format!("cold {round}")).await.secret;
    prepare(cluster).await;
    // B applies changes after at least 300 ms, and the lookup takes 850 ms.
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
    // The lookup in progress stays slow, but a retry would be fast.
    sleep(Duration::from_millis(500)).await;
    cluster.b.link.set(Link::Up);
    let answered = asked.await.unwrap();
    let took = revoked.elapsed();
    cluster.b.links(Link::Up);
    let response = answered.unwrap().into_inner();
    let seen = outcomes(&response);
    if seen[0].starts_with("Unavailable ") || (seen[1] != "OK" && took <= BOUND) {
        println!("inconclusive: {seen:?} after {took:?}");
        return None;
    }
    Some((seen[0] == "OK", took))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_answer_does_not_outlast_its_lease_during_a_slow_lookup() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.allow_tokens(100).await;
    for round in 0..10 {
        let Some((active, took)) = ask_beside_a_slow_lookup(&cluster, round).await else {
            continue;
        };
        assert!(took > BOUND, "answered within the bound: {took:?}");
        assert!(!active, "active {took:?} after the revoke");
        return;
    }
    panic!("every run was inconclusive");
}
