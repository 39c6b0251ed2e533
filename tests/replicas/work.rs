//! Tests that calls whose answers must not be distinguishable by their duration do the same work (the
//! same statements and the same number of lookups), and take equally long. To time more calls, run
//! `STACKTOKEN_TEST_TIMES=20000 cargo test --test replicas indistinguishable_answers -- --nocapture`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use stacktoken::{
    app::Safeguards,
    config::Tuning,
    domain::{clock::Clock as _, entropy::OsEntropy, secret::Secret},
    grpc::pb::v1,
};
use tonic::{Code, transport::Endpoint};

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    support::{
        Client, introspect_request, issue_request, reason,
        requests::{get_request, list_request, revoke_request},
    },
};

const NOWHERE: &str = "blt00000000deadbeef";

/// A text that occurs only in the statement that looks up a digest.
const LOOK_UP: &str = "s.session_ended_at";

/// The statements that sessions of replica A have run, without their parameters.
type Statements = Vec<String>;

impl Cluster {
    /// Makes the server log every statement together with its session.
    fn log_statements(&self) {
        let settings = [
            "ALTER SYSTEM SET log_statement = 'all'",
            "ALTER SYSTEM SET log_line_prefix = '%p|'",
            "SELECT pg_reload_conf()",
        ];
        self.postgres.run_each("postgres", &settings);
        // When this statement is logged, all later ones are logged too.
        while !self.postgres.log().contains("'it logs'") {
            self.postgres.run(DATABASE, "SELECT 'it logs'");
        }
    }

    /// Returns the statements that a call runs, grouped by transaction. Only transactions that read
    /// a table of stacks or of secrets count, because all others belong to probes and polls.
    async fn statements_of<T>(&self, call: impl Future<Output = T>) -> (T, Statements) {
        let before = self.postgres.log().len();
        let answered = call.await;
        let log = self.postgres.log();
        let mut open = BTreeMap::<&str, Statements>::new();
        let mut ran = Vec::new();
        for (session, text) in log[before..].lines().filter_map(statement) {
            let transaction = open.entry(session).or_default();
            transaction.push(text.to_owned());
            let begins = transaction[0].starts_with("BEGIN");
            if !begins || text.starts_with("COMMIT") || text.starts_with("ROLLBACK") {
                let transaction = open.remove(session).unwrap();
                let tells = |text: &String| text.contains("\"stacks\"") || text.contains(LOOK_UP);
                if transaction.iter().any(tells) {
                    ran.extend(transaction);
                }
            }
        }
        (answered, ran)
    }
}

/// Returns the session and the statement that a line of the log contains.
fn statement(line: &str) -> Option<(&str, &str)> {
    let (session, rest) = line.split_once('|')?;
    let rest = rest.strip_prefix("LOG:  ")?;
    let text = rest.strip_prefix("statement: ").or_else(|| {
        let (_, text) = rest.strip_prefix("execute ")?.split_once(": ")?;
        Some(text)
    });
    Some((session, text?))
}

impl Replica {
    async fn stranger(&self, cluster: &Cluster) -> Client {
        let jwt = cluster.issuer.user("stranger", self.clock.now().seconds());
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Client::new(
            endpoint.connect().await.unwrap(),
            Some(format!("Bearer {jwt}")),
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_stranger_a_stack_that_exists_costs_the_same_statements_as_one_that_does_not() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let uid = cluster
        .issue("seen by no stranger")
        .await
        .token
        .unwrap()
        .token_uid;
    let stranger = cluster.a.stranger(&cluster).await;
    cluster.log_statements();
    let mut of_each = Vec::new();
    // Each call is made twice, because the second one could be answered from a cache.
    let real = cluster.stack.as_str();
    for key in [real, NOWHERE, real, NOWHERE] {
        let (mut tokens, mut stacks) = (stranger.tokens.clone(), stranger.stacks.clone());
        let calls = async {
            let get = tokens.get(get_request(key, &uid)).await.map(drop);
            let list = tokens.list(list_request(key)).await.map(drop);
            let issue = tokens.issue(issue_request(key, "mine")).await.map(drop);
            let revoke = tokens.revoke(revoke_request(key, &uid, "")).await.map(drop);
            let shown = stacktoken::grpc::pb::admin::v1::GetRequest {
                stack_api_key: key.to_owned(),
            };
            let shown = stacks.get(shown).await.map(drop);
            [get, list, issue, revoke, shown]
        };
        let (answered, statements) = cluster.statements_of(calls).await;
        for answer in answered {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::NotFound);
            assert_eq!(reason(&status), "STACK_NOT_FOUND");
        }
        // The key is part of the text of the statement that locks the stack, so it is replaced.
        let without_key = |text: String| text.replace(key, "KEY");
        of_each.push(statements.into_iter().map(without_key).collect::<Vec<_>>());
    }
    assert!(of_each[0].len() >= 10, "{:#?}", of_each[0]);
    for other in &of_each[1..] {
        assert_eq!(other, &of_each[0]);
    }
}

/// Returns a secret that does not exist.
fn unknown() -> String {
    let secret = Secret::generate(&OsEntropy).unwrap();
    secret.expose().to_owned()
}

/// Returns how many lookups a question makes when it is asked first, when it is repeated within
/// [`UNKNOWN_FOR`], and after the cached verdict has expired. Also returns the hits and misses of
/// the cache. Measures again if the machine was too slow to repeat the question in time.
async fn look_ups(cluster: &Cluster, stack: &str, secret: &str, in_batch: bool) -> String {
    for attempt in 0..20 {
        if attempt > 0 {
            expire(cluster).await;
        }
        let (counted, took) = count_look_ups(cluster, stack, secret, in_batch).await;
        if took < UNKNOWN_FOR {
            return counted;
        }
    }
    panic!("20 times, two questions in a row took longer than {UNKNOWN_FOR:?}");
}

/// For how long a replica caches that a secret is unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Pauses the replica until its cached verdicts are too old, and waits for its next lease.
async fn expire(cluster: &Cluster) {
    let replica = &cluster.a;
    replica.clock.pause_for(2 * UNKNOWN_FOR);
    while replica.metric("stacktoken_lease_age_seconds").await >= 0.5 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The replica may evict once more after its clock has jumped.
    tokio::time::sleep(UNKNOWN_FOR).await;
}

/// Returns the counts that [`look_ups`] describes, and how long the first two questions took.
async fn count_look_ups(
    cluster: &Cluster,
    stack: &str,
    secret: &str,
    in_batch: bool,
) -> (String, Duration) {
    let replica = &cluster.a;
    let ask = async || {
        let question = introspect_request(stack, secret, &[]);
        if in_batch {
            let batch = crate::support::requests::batch_request(stack, &[secret]);
            let mut client = replica.service.introspection.clone();
            let answered = client.batch_introspect(batch).await.unwrap().into_inner();
            assert_eq!(
                crate::support::requests::outcomes(&answered),
                ["NOT_RECOGNIZED"]
            );
        } else {
            let mut client = replica.service.introspection.clone();
            let answer = client.introspect(question).await.unwrap().into_inner();
            assert_eq!(answer.reason(), v1::Reason::NotRecognized);
        }
    };
    let counts = async || {
        let hits = replica.metric("stacktoken_cache_hits_total").await;
        let misses = replica.metric("stacktoken_cache_misses_total").await;
        (hits, misses)
    };
    let before = counts().await;
    let mut ran = Vec::new();
    let began = Instant::now();
    let mut took = Duration::ZERO;
    for expired in [false, false, true] {
        if expired {
            took = began.elapsed();
            expire(cluster).await;
        }
        let ((), statements) = cluster.statements_of(ask()).await;
        let read = statements.iter().filter(|text| text.contains(LOOK_UP));
        ran.push(read.count());
    }
    let after = counts().await;
    let (hits, misses) = (after.0 - before.0, after.1 - before.1);
    (format!("{ran:?}, {hits} hits, {misses} misses"), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_holder_a_wrong_stack_key_costs_the_same_look_ups_as_an_unknown_secret() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let other = cluster.register().await;
    cluster.log_statements();
    for in_batch in [false, true] {
        let used = cluster.issue(&format!("used {in_batch}")).await.secret;
        cluster.a.introspect(&cluster.stack, &used).await.unwrap();
        let unused = cluster.issue(&format!("unused {in_batch}")).await.secret;
        let wanted = look_ups(&cluster, &cluster.stack, &unknown(), in_batch).await;
        assert_eq!(wanted, "[1, 0, 1], 1 hits, 2 misses");
        for (secret, key) in [
            (&used, &*other),
            (&unused, &*other),
            (&used, NOWHERE),
            (&unused, NOWHERE),
        ] {
            let told = look_ups(&cluster, key, secret, in_batch).await;
            assert_eq!(told, wanted, "{key}");
        }
        // With the key of its own stack, each secret is active.
        for secret in [&used, &unused] {
            let answer = cluster.a.introspect(&cluster.stack, secret).await.unwrap();
            assert!(answer.active);
        }
    }
}

/// How many calls of each kind are timed: few in the gate, where the machine may be busy.
fn times() -> usize {
    let times = std::env::var("STACKTOKEN_TEST_TIMES");
    times.map_or(400, |times| times.parse().unwrap())
}

/// Times calls with two texts, in turn, so that a change of the machine's load meets both alike.
async fn timed(mut call: impl AsyncFnMut(&str), texts: [&str; 2]) -> [Vec<f64>; 2] {
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..times() {
        for turn in 0..2 {
            // The order within a pair alternates too.
            let which = (round + turn) % 2;
            let began = Instant::now();
            call(texts[which]).await;
            took[which].push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    took
}

/// Returns Welch's t of two samples, without the slowest tenth of both together, which the
/// scheduler and the disk decide.
fn welch([one, other]: &[Vec<f64>; 2]) -> f64 {
    let mut all = [&one[..], &other[..]].concat();
    all.sort_by(f64::total_cmp);
    let most = all[all.len() * 9 / 10];
    let of = |times: &[f64]| {
        let kept: Vec<_> = times.iter().copied().filter(|time| *time <= most).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let squares = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>();
        (mean, squares / (count - 1.0) / count)
    };
    let ((mean, error), (other_mean, other_error)) = (of(one), of(other));
    (mean - other_mean) / (error + other_error).sqrt()
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints the medians of a pair, and returns its |t|.
fn told(pair: &str, took: &[Vec<f64>; 2]) -> f64 {
    let t = welch(took).abs();
    let [one, other] = [median(&took[0]), median(&took[1])];
    println!(
        "{pair}: {one:.0} and {other:.0} µs, |t| {t:.1}, {} calls each",
        times()
    );
    t
}

/// Two kinds of calls count as equally long below this |t|: the usual bound of leakage assessments.
const LEAK: f64 = 4.5;

/// An answer that reveals nothing by its content reveals nothing by its time either. The last pair
/// is the control: the same call twice, but one of them half as long again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indistinguishable_answers_take_equally_long() {
    let unlimited = |tuning: &mut Tuning| {
        tuning.unrecognized_per_second = 1_000_000.try_into().unwrap();
    };
    let Some(cluster) = Cluster::start_with(unlimited, Safeguards::default()).await else {
        return;
    };
    let stranger = cluster.a.stranger(&cluster).await;
    let list = async |key: &str| {
        let mut tokens = stranger.tokens.clone();
        tokens.list(list_request(key)).await.unwrap_err();
    };
    let other = cluster.register().await;
    let known = cluster.issue("known").await.secret;
    cluster.a.warm(&cluster.stack, &known).await;
    let ask = async |secret: &str| {
        cluster.a.introspect(&other, secret).await.unwrap();
    };
    let never = unknown();
    // Opens the connections and fills the plan caches.
    for secret in [&known, &never].into_iter().cycle().take(50) {
        ask(secret).await;
    }
    let stacks = timed(&list, [&cluster.stack, NOWHERE]).await;
    let secrets = timed(&ask, [&known, &never]).await;
    let longer = Duration::from_secs_f64(median(&secrets[0]) / 2e6);
    let slowed = async |which: &str| {
        ask(&never).await;
        let began = Instant::now();
        while which == "slow" && began.elapsed() < longer {}
    };
    let control = timed(&slowed, ["slow", "as it is"]).await;
    let stacks = told("a stack that exists, and none", &stacks);
    let secrets = told("a wrong stack key, and an unknown secret", &secrets);
    let control = told("the control: half as long again", &control);
    assert!(control > LEAK, "the measurement sees nothing");
    assert!(stacks < LEAK && secrets < LEAK, "{stacks} {secrets}");
}
