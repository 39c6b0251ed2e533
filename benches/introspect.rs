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

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use stacktoken::grpc::pb::{
    admin::v1::{SetTokenLimitRequest, stack_service_client::StackServiceClient},
    v1::{
        self, introspection_service_client::IntrospectionServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use tempfile::TempDir;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

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

/// The server, gone with the measurement.
struct Server {
    child: Child,
    ready: Value,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let ready_file = folder.path().join("ready.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stacktoken"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACKTOKEN_")) {
            command.env_remove(name);
        }
        let child = command
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            // Only so that the tokens are there soon.
            .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
            .env("STACKTOKEN_CHANGES_BURST", "1000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = wait_for(&ready_file);
        Self {
            child,
            ready,
            _folder: folder,
        }
    }

    fn get(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    fn request<M>(&self, jwt: &str, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let credential = format!("Bearer {}", self.get(jwt)).parse().unwrap();
        request.metadata_mut().insert("authorization", credential);
        request
    }

    async fn channel(&self) -> Channel {
        let endpoint = format!("http://{}", self.get("grpc_address"));
        Endpoint::from_shared(endpoint)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// The time on a processor that the process has had.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // A tick is a hundredth of a second wherever Linux has a /proc.
        Duration::from_millis(ticks * 10)
    }

    /// Makes the tokens, and answers their secrets.
    async fn issue(&self) -> Vec<String> {
        let channel = self.channel().await;
        let mut stacks = StackServiceClient::new(channel.clone());
        let limit = SetTokenLimitRequest {
            stack_api_key: self.get("stack_api_key").to_owned(),
            max_tokens: Some(TOKENS.try_into().unwrap()),
            reason: "a measurement".into(),
            validate_only: false,
        };
        let limit = self.request("operator_jwt", limit);
        stacks.set_token_limit(limit).await.unwrap();
        let mut tokens = TokenServiceClient::new(channel);
        let mut secrets = Vec::new();
        for at in 0..TOKENS {
            let request = self.request("owner_jwt", self.token(at));
            // The server comes with tokens of its own, which count.
            let Ok(issued) = tokens.issue(request).await else {
                break;
            };
            secrets.push(issued.into_inner().secret);
        }
        assert!(secrets.len() > TOKENS - 50, "only {}", secrets.len());
        secrets
    }

    fn token(&self, at: usize) -> v1::IssueRequest {
        v1::IssueRequest {
            stack_api_key: self.get("stack_api_key").to_owned(),
            name: format!("measured {at}"),
            permissions: Some(v1::Permissions {
                access: v1::Access::ReadWrite.into(),
                ..Default::default()
            }),
            expiry: Some(v1::Expiry {
                expiry: Some(v1::expiry::Expiry::Never(true)),
            }),
            ..Default::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(ready_file: &Path) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let read = fs::read_to_string(ready_file).unwrap_or_default();
        if let Ok(ready) = serde_json::from_str(&read) {
            return ready;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the server never served");
}

fn actions() -> Vec<v1::ActionQuestion> {
    vec![v1::ActionQuestion {
        name: "entry.update".into(),
        branch: "main".into(),
        ..Default::default()
    }]
}

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
        self.run(way, WARM_UP).await;
        let (cpu, begun) = (self.server.cpu(), Instant::now());
        let verdicts = self.run(way, MEASURED).await as f64;
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
    let server = Server::start();
    let secrets = server.issue().await;
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
    for round in 1..=ROUNDS {
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
    let median = ratios[ROUNDS / 2];
    println!("median ratio {median:.1}, wanted {WANTED:.1}");
    if median >= WANTED {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
