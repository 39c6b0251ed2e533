//! Verdicts a second of the client for Rust services from its own memory, on one core, against
//! a real server that it watches: `cargo bench --features client --bench client`.
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
    hint::black_box,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use stacktoken::{
    client::{Client, Question},
    domain::verdict::ActionQuestion,
    grpc::pb::{
        admin::v1::{SetTokenLimitRequest, stack_service_client::StackServiceClient},
        v1::{self, token_service_client::TokenServiceClient},
    },
};
use tempfile::TempDir;
use tonic::{Request, transport::Endpoint};

const TOKENS: usize = 200;
const ROUNDS: usize = 3;
const MEASURED: Duration = Duration::from_secs(2);
/// What has to be reached without an action, in verdicts a second.
const WANTED: f64 = 1_000_000.0;

/// The server, gone with the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> (Server, Value) {
    let ready_file = folder.join("ready.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stacktoken"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACKTOKEN_")) {
        command.env_remove(name);
    }
    let any = "127.0.0.1:0";
    let child = command
        .args(["dev", "--listen", any, "--admin-listen", any])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--ready-file")
        .arg(&ready_file)
        // Only so that the tokens are there soon.
        .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
        .env("STACKTOKEN_CHANGES_BURST", "1000000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let give_up = Instant::now() + Duration::from_secs(30);
    while !ready_file.exists() {
        assert!(Instant::now() < give_up, "the server does not serve");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ready = serde_json::from_slice(&fs::read(ready_file).unwrap()).unwrap();
    (server, ready)
}

async fn issue(ready: &Value) -> Vec<String> {
    let get = |name: &str| ready[name].as_str().unwrap().to_owned();
    fn sent<M>(message: M, jwt: &str) -> Request<M> {
        let mut request = Request::new(message);
        let credential = format!("Bearer {jwt}").parse().unwrap();
        request.metadata_mut().insert("authorization", credential);
        request
    }
    let address = format!("http://{}", get("grpc_address"));
    let channel = Endpoint::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let limit = SetTokenLimitRequest {
        validate_only: false,
        stack_api_key: get("stack_api_key"),
        max_tokens: Some(1000),
        reason: "a measurement".into(),
    };
    let mut stacks = StackServiceClient::new(channel.clone());
    let limit = sent(limit, &get("operator_jwt"));
    stacks.set_token_limit(limit).await.unwrap();
    let mut tokens = TokenServiceClient::new(channel);
    let mut secrets = Vec::new();
    for at in 0..TOKENS {
        let request = v1::IssueRequest {
            stack_api_key: get("stack_api_key"),
            name: format!("measured {at}"),
            permissions: Some(v1::Permissions {
                access: v1::Access::ReadWrite.into(),
                modules: None,
                branches: None,
            }),
            expiry: Some(v1::Expiry {
                expiry: Some(v1::expiry::Expiry::Never(true)),
            }),
            ..Default::default()
        };
        let request = sent(request, &get("owner_jwt"));
        secrets.push(tokens.issue(request).await.unwrap().into_inner().secret);
    }
    secrets
}

/// Verdicts a second on this thread.
fn measure(client: &Client, secrets: &[String], key: &str, actions: &[ActionQuestion]) -> f64 {
    let (began, mut answered, mut missed) = (Instant::now(), 0_u32, 0_u32);
    while began.elapsed() < MEASURED {
        for secret in secrets {
            let question = Question::new(black_box(secret), key).about(actions);
            match black_box(client.cached(&question)) {
                Some(answer) => {
                    assert!(answer.active());
                    answered += 1;
                }
                None => missed += 1,
            }
        }
    }
    let rate = f64::from(answered) / began.elapsed().as_secs_f64();
    // The lease may lapse for a moment on a busy machine; that is no hit.
    println!("  {rate:>10.0} verdicts/s, {missed} not from memory");
    rate
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let folder = TempDir::new().unwrap();
    let (_server, ready) = start(folder.path());
    let get = |name: &str| ready[name].as_str().unwrap();
    let secrets = issue(&ready).await;
    let client = Client::builder(format!("http://{}", get("grpc_address")))
        .bearer(get("service_jwt"))
        .build()
        .unwrap();
    while client.watch_fault().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let key = get("stack_api_key");
    for secret in &secrets {
        let question = Question::new(secret, key);
        assert!(client.introspect(&question).await.unwrap().active());
        assert!(client.introspect(&question).await.unwrap().from_memory());
    }
    let action = [ActionQuestion {
        name: "entry.update".into(),
        branch: Some("main".into()),
        ..Default::default()
    }];
    let mut best = 0.0_f64;
    for round in 0..ROUNDS {
        println!("round {round}: no action, then one action");
        best = best.max(measure(&client, &secrets, key, &[]));
        measure(&client, &secrets, key, &action);
    }
    println!("wanted: {WANTED:.0} verdicts/s without an action; best: {best:.0}");
    if best >= WANTED {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
