//! Compares the verdicts per second of single calls with those of batches, all answered from the
//! cache. Single calls and batches alternate on one server process. Run it with `cargo bench
//! --bench introspect`. The load generator shares the cores of the machine with the server, so only
//! the ratio is meaningful.
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
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use stacktoken::grpc::pb::v1::{
    self, batch_introspect_result::Result as Outcome,
    introspection_service_client::IntrospectionServiceClient,
};
use tonic::transport::Channel;

use support::{Server, actions};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
/// The maximum number of tokens of a stack.
const TOKENS: usize = 1000;
const BATCH: usize = 100;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
/// The required ratio of verdicts per second, with batches to single calls.
const WANTED: f64 = 8.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Single,
    Batch,
}

/// The server, and the channels and secrets that all streams of the load use.
struct Load {
    server: Server,
    channels: Vec<Channel>,
    secrets: Vec<String>,
}

impl Load {
    /// Returns the verdicts per second, and the server's CPU time per verdict in microseconds.
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
                ..Default::default()
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
                    ..Default::default()
                });
            let batch = v1::BatchIntrospectRequest {
                questions: questions.collect(),
                min_revision: String::new(),
            };
            let request = self.server.request("service_jwt", batch);
            let response = client.batch_introspect(request).await.unwrap().into_inner();
            assert_eq!(response.results.len(), BATCH);
            for result in &response.results {
                let Some(Outcome::Answer(answer)) = &result.result else {
                    panic!("{result:?}");
                };
                assert_eq!(answer.decision(), v1::Decision::Allow);
            }
            verdicts += BATCH as u64;
        }
        verdicts
    }

    /// Prints the sizes of the messages in bytes.
    async fn print_sizes(&self) {
        let includes = [
            v1::IntrospectInclude::Permissions,
            v1::IntrospectInclude::Stack,
            v1::IntrospectInclude::Token,
            v1::IntrospectInclude::Labels,
        ];
        let question = v1::IntrospectRequest {
            token: self.secrets[0].clone(),
            stack_api_key: self.server.get("stack_api_key").to_owned(),
            actions: actions(),
            ..Default::default()
        };
        println!("| question | request | response |\n|---|---|---|");
        for (what, question) in [
            (
                "not recognized",
                v1::IntrospectRequest {
                    token: "junk".into(),
                    ..question.clone()
                },
            ),
            (
                "no action",
                v1::IntrospectRequest {
                    actions: Vec::new(),
                    ..question.clone()
                },
            ),
            ("one action", question.clone()),
            (
                "one action, all included",
                v1::IntrospectRequest {
                    include: includes.map(Into::into).to_vec(),
                    ..question
                },
            ),
        ] {
            let asked = question.encoded_len();
            let request = self.server.request("service_jwt", question);
            let answered = self.client(0).introspect(request).await.unwrap();
            let answer = answered.into_inner().encoded_len();
            println!("| {what} | {asked} bytes | {answer} bytes |");
        }
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
    load.print_sizes().await;
    let mut ratios = Vec::new();
    for round in 1..=size::rounds(ROUNDS) {
        let (single, single_cpu) = load.measure(Way::Single).await;
        let (batch, batch_cpu) = load.measure(Way::Batch).await;
        let ratio = batch / single;
        println!(
            "round {round}: single {single:.0} verdicts/s (server CPU {single_cpu:.1} us each), \
             batches of {BATCH} {batch:.0} verdicts/s (server CPU {batch_cpu:.2} us each), ratio {ratio:.1}"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.1}, required {WANTED:.1}");
    size::judge(median >= WANTED)
}
