//! Tests federated tokens over two replicas on one PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use stacktoken::grpc::pb::{audit::v1::ListRequest, v1};
use tonic::{Code, Status, transport::Endpoint};

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    support::{
        Client,
        federated::{exchange_request, federated_request, federation, job, rounds},
        reason,
        requests::get_request,
    },
};

const BOUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 20;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

async fn federated(cluster: &Cluster, name: &str) -> String {
    let request = federated_request(&cluster.stack, name);
    let issued = cluster.a.owner.clone().tokens.issue(request).await.unwrap();
    issued.into_inner().token.unwrap().token_uid
}

/// Exchanges an assertion at a replica, and tries again as long as the queue of the stack is full.
async fn exchange(
    (cluster, replica): (&Cluster, &Replica),
    (uid, claims): (&str, &Value),
) -> Result<v1::ExchangeResponse, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{}", replica.address)).unwrap();
    let jwt = format!("Bearer {}", cluster.issuer.sign(claims));
    let mut workload = Client::new(endpoint.connect().await.unwrap(), Some(jwt));
    loop {
        let request = exchange_request(&cluster.stack, uid);
        match workload.exchange.exchange(request).await {
            Err(status) if status.code() == Code::Unavailable => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answered => return answered.map(tonic::Response::into_inner),
        }
    }
}

fn replica(cluster: &Cluster, at: usize) -> &Replica {
    if at.is_multiple_of(2) {
        &cluster.a
    } else {
        &cluster.b
    }
}

async fn live(cluster: &Cluster, uid: &str) -> u32 {
    live_on(cluster, &cluster.stack, uid).await
}

async fn live_on(cluster: &Cluster, stack: &str, uid: &str) -> u32 {
    let request = get_request(stack, uid);
    let got = cluster.a.owner.clone().tokens.get(request).await.unwrap();
    got.into_inner().live_sessions
}

async fn end(cluster: &Cluster, uid: &str) -> Instant {
    end_on(cluster, &cluster.stack, uid).await
}

async fn end_on(cluster: &Cluster, stack: &str, uid: &str) -> Instant {
    let request = v1::EndSessionsRequest {
        stack_api_key: stack.to_owned(),
        token_uid: uid.into(),
        ..Default::default()
    };
    let mut owner = cluster.a.owner.clone();
    owner.tokens.end_sessions(request).await.unwrap();
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_assertion_exchanged_64_times_at_two_replicas_has_one_live_secret() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uid = federated(&cluster, "ci").await;
    for _ in 0..rounds(ROUNDS) {
        let claims = job(now(), json!({}));
        let all = (0..64).map(|at| exchange((&cluster, replica(&cluster, at)), (&uid, &claims)));
        let mut active = 0;
        for answer in join_all(all).await {
            let secret = answer.unwrap().secret;
            let verdict = cluster.b.introspect(&cluster.stack, &secret).await;
            active += usize::from(verdict.unwrap().active);
        }
        assert_eq!(active, 1);
        assert_eq!(live(&cluster, &uid).await, 1);
        end(&cluster, &uid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_assertion_exchanged_for_tokens_of_two_stacks_at_once_is_exchanged_once() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let other = cluster.register().await;
    let first = federated(&cluster, "ci").await;
    let request = federated_request(&other, "ci");
    let issued = cluster.a.owner.clone().tokens.issue(request).await.unwrap();
    let second = issued.into_inner().token.unwrap().token_uid;
    for round in 0..ROUNDS {
        let claims = job(now(), json!({ "run_id": round.to_string() }));
        let jwt = format!("Bearer {}", cluster.issuer.sign(&claims));
        let ask = |replica: &Replica, stack: &str| {
            let endpoint = Endpoint::from_shared(format!("http://{}", replica.address)).unwrap();
            let (jwt, request) = (jwt.clone(), exchange_request(stack, ""));
            async move {
                let mut workload = Client::new(endpoint.connect().await.unwrap(), Some(jwt));
                workload.exchange.exchange(request).await
            }
        };
        let (one, two) = tokio::join!(ask(&cluster.a, &cluster.stack), ask(&cluster.b, &other));
        assert_ne!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
        let refused = one.and(two).unwrap_err();
        assert_eq!(reason(&refused), "EXCHANGE_REFUSED");
        // The exchange that was refused has left no session.
        let both = [(&cluster.stack, &first), (&other, &second)];
        let mut sessions = 0;
        for (stack, uid) in both {
            sessions += live_on(&cluster, stack, uid).await;
        }
        assert_eq!(sessions, 1);
        for (stack, uid) in both {
            end_on(&cluster, stack, uid).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_limit_of_100_exactly_100_of_200_exchanges_at_two_replicas_succeed() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uid = federated(&cluster, "ci").await;
    // As long as it can be, and of text that PostgreSQL cannot compress in an index.
    let digits = (0_u32..).map(|number| format!("{:08x}", number.wrapping_mul(0x9e37_79b1)));
    let long: String = digits.take(128).collect();
    for _ in 0..rounds(3) {
        let claims = |run: usize| json!({ "run_id": run.to_string(), "sub": long });
        let jobs: Vec<_> = (0..200).map(|run| job(now(), claims(run))).collect();
        let all = jobs
            .iter()
            .enumerate()
            .map(|(at, claims)| exchange((&cluster, replica(&cluster, at)), (&uid, claims)));
        let answers = join_all(all).await;
        let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (100, 100));
        for status in refused {
            assert_eq!(reason(&status.unwrap_err()), "SESSION_LIMIT");
        }
        assert_eq!(live(&cluster, &uid).await, 100);
        end(&cluster, &uid).await;
        assert_eq!(live(&cluster, &uid).await, 0);
    }
}

/// Ends the session of a secret, without a credential.
async fn end_own(replica: &Replica, secret: &str) -> Instant {
    let endpoint = Endpoint::from_shared(format!("http://{}", replica.address)).unwrap();
    let mut job = Client::new(endpoint.connect().await.unwrap(), None);
    let request = v1::EndSessionRequest {
        secret: secret.to_owned(),
    };
    let ended = job.exchange.end_session(request).await.unwrap();
    assert!(ended.into_inner().ended);
    Instant::now()
}

/// A job, its owner and a service that reports the secret end the session at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_end_one_session_at_once_one_leaves_a_row() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uid = federated(&cluster, "ci").await;
    for round in 0..ROUNDS {
        let claims = job(now(), json!({ "run_id": round.to_string() }));
        let session = exchange((&cluster, &cluster.a), (&uid, &claims));
        let secret = session.await.unwrap().secret;
        let all = (0..4).map(|at| end_own(replica(&cluster, at), &secret));
        tokio::join!(join_all(all), end(&cluster, &uid));
        let verdict = cluster.a.introspect(&cluster.stack, &secret).await;
        assert_eq!(verdict.unwrap().reason(), v1::Reason::Revoked);
        assert_eq!(live(&cluster, &uid).await, 0);
    }
    let request = ListRequest {
        stack_api_key: cluster.stack.clone(),
        page_size: 100,
        ..Default::default()
    };
    let mut operator = cluster.a.operator.clone();
    let listed = operator.audit.list(request).await.unwrap().into_inner();
    let ends = listed.events.iter();
    let ends = ends.filter(|event| event.method.contains("/EndSession"));
    assert_eq!(ends.count(), ROUNDS);
}

/// A change that ends sessions at one replica ends them at the other within the bound, even if they
/// are cached there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_one_replica_ends_at_the_other_within_the_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..ROUNDS {
        let uid = federated(&cluster, &format!("ci {round}")).await;
        let claims = job(now(), json!({}));
        let session = exchange((&cluster, &cluster.b), (&uid, &claims))
            .await
            .unwrap();
        for replica in [&cluster.a, &cluster.b] {
            replica.warm(&cluster.stack, &session.secret).await;
        }
        let mut owner = cluster.a.owner.clone();
        let ended = match round % 4 {
            0 => end(&cluster, &uid).await,
            3 => end_own(&cluster.a, &session.secret).await,
            1 => {
                cluster.revoke(&uid).await.unwrap();
                Instant::now()
            }
            _ => {
                let request = v1::UpdateRequest {
                    stack_api_key: cluster.stack.clone(),
                    token: Some(v1::Token {
                        token_uid: uid.clone(),
                        federation: Some(v1::Federation {
                            session_for: Some(prost_types::Duration {
                                seconds: 60,
                                nanos: 0,
                            }),
                            ..federation()
                        }),
                        ..Default::default()
                    }),
                    update_mask: Some(prost_types::FieldMask {
                        paths: vec!["federation".into()],
                    }),
                    ..Default::default()
                };
                owner.tokens.update(request).await.unwrap();
                Instant::now()
            }
        };
        let own = cluster.a.introspect(&cluster.stack, &session.secret).await;
        assert_eq!(own.unwrap().reason(), v1::Reason::Revoked);
        loop {
            let asked = Instant::now();
            let other = cluster.b.introspect(&cluster.stack, &session.secret).await;
            if !other.unwrap().active {
                break;
            }
            assert!(asked - ended <= BOUND, "active past the bound");
        }
        let _ = cluster.revoke(&uid).await;
    }
}

/// Does what the previous version would do to a federated token, which it takes for an ordinary
/// one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_previous_version_gives_a_federated_token_no_secret_and_can_purge_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uid = federated(&cluster, "ci").await;
    let claims = job(now(), json!({}));
    exchange((&cluster, &cluster.b), (&uid, &claims))
        .await
        .unwrap();
    let rotate = "DO $$ BEGIN UPDATE tokens SET generation = 1 WHERE federation IS NOT NULL; \
                  RAISE EXCEPTION 'rotated'; EXCEPTION WHEN check_violation THEN NULL; END $$";
    cluster.postgres.run(DATABASE, rotate);
    let left = "DELETE FROM tokens; SELECT count(*) FROM sessions";
    assert!(cluster.postgres.run(DATABASE, left).trim().ends_with('0'));
}
