//! Compares the latency of cached verdicts while 100,000 dead tokens are deleted with the latency
//! without deletions. Run it with `cargo bench --bench housekeeping`. The load generator shares the
//! cores of the machine with the server, so only the ratio is meaningful.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark may panic"
)]

#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "support/size.rs"]
mod size;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait as _;
use stacktoken::grpc::pb::v1::{self, introspection_service_client::IntrospectionServiceClient};
use tonic::transport::Channel;

use support::Server;

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const TOKENS: usize = 500;
const DEAD: usize = 100_000;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
/// The maximum ratio of the 99th percentile of the latency, with deletions to without.
const ALLOWED: f64 = 1.5;

/// Inserts the dead tokens in one SQL transaction, each with a secret and a last use.
async fn insert_dead_tokens(server: &Server) {
    let dead = size::count(DEAD);
    let numbers =
        format!("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {dead})");
    let uid = "CAST(printf('%016d', n) AS BLOB)";
    let sql = format!(
        "BEGIN IMMEDIATE; INSERT INTO tokens (uid, stack_uid, name, description, permissions, \
         generation, secret_hint, issued_at, issued_by_kind, issued_by_issuer, \
         issued_by_subject, revoked_at, revoke_reason) {numbers} SELECT {uid}, \
         (SELECT uid FROM stacks), 'n' || n, '', '{{\"access\":\"READ\"}}', 1, 'abcd', 0, \
         'USER', 'i', 's', n, '' FROM t; \
         INSERT INTO token_secrets (digest, token_uid, generation, made_at) {numbers} \
         SELECT CAST(printf('%032d', n) AS BLOB), {uid}, 1, 0 FROM t; \
         INSERT INTO token_usage {numbers} SELECT {uid}, 'i', 's', 1 FROM t; COMMIT"
    );
    let url = format!("sqlite://{}?mode=rw", server.database().display());
    let outside = sea_orm::Database::connect(url).await.unwrap();
    outside.execute_unprepared(&sql).await.unwrap();
    outside.close().await.unwrap();
}

/// Returns how many tokens have been deleted so far.
fn purged(server: &Server) -> u64 {
    server.metric("stacktoken_purged_rows_total{table=\"tokens\"}") as u64
}

/// The server, and the channels and secrets that all streams of the load use.
struct Load {
    server: Server,
    channels: Vec<Channel>,
    secrets: Vec<String>,
}

impl Load {
    /// Sends calls until `stopped` completes. Returns their latencies in microseconds, in ascending
    /// order.
    async fn ask_until(self: &Arc<Self>, stopped: impl Future<Output = ()>) -> Vec<u32> {
        let stop = Arc::new(AtomicBool::new(false));
        let streams = (0..CONNECTIONS * STREAMS).map(|stream| {
            let (load, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { load.ask(stream, &stop).await })
        });
        let streams: Vec<_> = streams.collect();
        stopped.await;
        stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for stream in streams {
            took.extend(stream.await.unwrap());
        }
        took.sort_unstable();
        took
    }

    async fn ask(&self, stream: usize, stop: &AtomicBool) -> Vec<u32> {
        let channel = self.channels[stream % CONNECTIONS].clone();
        let mut client = IntrospectionServiceClient::new(channel);
        let mut took = Vec::new();
        for secret in self.secrets.iter().cycle().skip(stream * 7) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let question = v1::IntrospectRequest {
                token: secret.clone(),
                stack_api_key: self.server.get("stack_api_key").to_owned(),
                ..Default::default()
            };
            let request = self.server.request("service_jwt", question);
            let began = Instant::now();
            let answer = client.introspect(request).await.unwrap().into_inner();
            took.push(u32::try_from(began.elapsed().as_micros()).unwrap());
            assert!(answer.active);
        }
        took
    }

    /// Waits until `wanted` tokens have been deleted.
    async fn deleted(&self, wanted: u64) {
        while purged(&self.server) < wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn p99(took: &[u32]) -> f64 {
    f64::from(took[took.len() * 99 / 100])
}

#[tokio::main]
async fn main() -> ExitCode {
    let server = Server::start(&[("STACKTOKEN_HOUSEKEEPING_EVERY", "200ms")]);
    let secrets = server.issue(size::count(TOKENS)).await;
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(server.channel().await);
    }
    let load = Arc::new(Load {
        server,
        channels,
        secrets,
    });
    println!(
        "{CONNECTIONS} connections x {STREAMS} streams, {} dead tokens per round",
        size::count(DEAD)
    );
    let mut ratios = Vec::new();
    for round in 1..=size::rounds(ROUNDS) {
        load.ask_until(tokio::time::sleep(size::time(WARM_UP)))
            .await;
        let quiet = load
            .ask_until(tokio::time::sleep(size::time(MEASURED)))
            .await;
        insert_dead_tokens(&load.server).await;
        let began = Instant::now();
        let wanted = (size::count(DEAD) * round) as u64;
        let busy = load.ask_until(load.deleted(wanted)).await;
        let lasted = began.elapsed().as_secs_f64();
        let ratio = p99(&busy) / p99(&quiet);
        println!(
            "round {round}: p99 {:.0} us without ({:.0}/s), {:.0} us while deleting ({:.0}/s, \
             done in {lasted:.1} s), ratio {ratio:.2}",
            p99(&quiet),
            quiet.len() as f64 / size::time(MEASURED).as_secs_f64(),
            p99(&busy),
            busy.len() as f64 / lasted,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.2}, allowed {ALLOWED:.2}");
    size::judge(median <= ALLOWED)
}
