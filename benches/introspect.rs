//! Verdicts a second of single calls and of batches, one after the other against one server
//! process, both answered from memory: `cargo bench --bench introspect`. The load is made on
//! the same machine and shares its cores, so what counts is the ratio.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement may fail loudly"
)]

#[allow(dead_code, reason = "each measurement needs its part")]
#[path = "support/size.rs"]
mod size;
#[allow(dead_code, reason = "each measurement needs its part")]
mod support;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::v1::{self, introspection_service_client::IntrospectionServiceClient};
use tonic::transport::Channel;

use support::{Server, actions};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
/// As many as a stack may have.
const TOKENS: usize = 1000;
const BATCH: usize = 100;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// What batches have to reach, in verdicts a second over those of single calls.
const WANTED: f64 = 8.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Single,
    Batch,
}

/// What all streams ask by.
struct Load {
    server: Server,
    channels: Vec<Channel>,
    secrets: Vec<String>,
}

impl Load {
    /// Verdicts a second, and the server's processor time for each, in microseconds.
    async fn measure(self: &Arc<Self>, way: Way) -> (f64, f64) {
        self.run(way, size::time(WARM_UP)).await;
        let (cpu, begun) = (self.server.cpu(), Instant::now());
        let verdicts = self.run(way, size::time(MEASURED)).await as f64;
        let (cpu, took) = (self.server.cpu() - cpu, begun.elapsed());
        (
            verdicts / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / verdicts,
        )
    }

    async fn run(self: &Arc<Self>, way: Way, during: Duration) -> u64 {
        let until = Instant::now() + during;
        let streams = (0..CONNECTIONS * STREAMS).map(|stream| {
            let load = self.clone();
            tokio::spawn(async move {
                match way {
                    Way::Single => load.ask(stream, until).await,
                    Way::Batch => load.ask_batches(stream, until).await,
                }
            })
        });
        let streams: Vec<_> = streams.collect();
        let mut verdicts = 0;
        for stream in streams {
            verdicts += stream.await.unwrap();
        }
        verdicts
    }

    async fn ask(&self, stream: usize, until: Instant) -> u64 {
        let mut client = self.client(stream);
        let mut verdicts = 0;
        for secret in self.secrets.iter().cycle().skip(stream * 7) {
            if Instant::now() >= until {
                break;
            }
            let question = v1::IntrospectRequest {
                token: secret.clone(),
                stack_api_key: self.server.get("stack_api_key").to_owned(),
                actions: actions(),
                min_revision: String::new(),
            };
            let request = self.server.request("service_jwt", question);
            let answer = client.introspect(request).await.unwrap().into_inner();
            assert_eq!(answer.decision(), v1::Decision::Allow);
            verdicts += 1;
        }
        verdicts
    }

    async fn ask_batches(&self, stream: usize, until: Instant) -> u64 {
        let mut client = self.client(stream);
        let mut verdicts = 0;
        let mut secrets = self.secrets.iter().cycle().skip(stream * 7);
        while Instant::now() < until {
            let questions = secrets
                .by_ref()
                .take(BATCH)
                .map(|secret| v1::IntrospectQuestion {
                    token: secret.clone(),
                    stack_api_key: self.server.get("stack_api_key").to_owned(),
                    actions: actions(),
                });
            let batch = v1::BatchIntrospectRequest {
                questions: questions.collect(),
                min_revision: String::new(),
            };
            let request = self.server.request("service_jwt", batch);
            let response = client.batch_introspect(request).await.unwrap().into_inner();
            assert_eq!(response.answers.len(), BATCH);
            for answer in &response.answers {
                assert_eq!(answer.decision(), v1::Decision::Allow);
            }
            verdicts += BATCH as u64;
        }
        verdicts
    }

    fn client(&self, stream: usize) -> IntrospectionServiceClient<Channel> {
        let channel = self.channels[stream % CONNECTIONS].clone();
        IntrospectionServiceClient::new(channel)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let server = Server::start(&[]);
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
        "{CONNECTIONS} connections x {STREAMS} streams, {} tokens",
        load.secrets.len()
    );
    let mut ratios = Vec::new();
    for round in 1..=size::rounds(ROUNDS) {
        let (single, single_cpu) = load.measure(Way::Single).await;
        let (batch, batch_cpu) = load.measure(Way::Batch).await;
        let ratio = batch / single;
        println!(
            "round {round}: single {single:.0} verdicts/s ({single_cpu:.1} us of the server each), \
             batches of {BATCH} {batch:.0} verdicts/s ({batch_cpu:.2} us each), ratio {ratio:.1}"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.1}, wanted {WANTED:.1}");
    size::judge(median >= WANTED)
}
