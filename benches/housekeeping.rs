//! How long answers from memory take while 100,000 dead tokens are deleted, against how long
//! they take without, in one run: `cargo bench --bench housekeeping`. The load is made on the
//! same machine and shares its cores, so what counts is the ratio.
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
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait as _;
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
const TOKENS: usize = 500;
const DEAD: u64 = 100_000;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
/// How much longer the slowest hundredth may take.
const ALLOWED: f64 = 1.5;

/// The server, gone with the measurement.
struct Server {
    child: Child,
    ready: Value,
    database: PathBuf,
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
            .args(["dev", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .env("STACKTOKEN_HOUSEKEEPING_EVERY", "200ms")
            // No connection is to end in the middle.
            .env("STACKTOKEN_MAX_CONNECTION_AGE", "2h")
            // Only so that the tokens are there soon.
            .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
            .env("STACKTOKEN_CHANGES_BURST", "1000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            ready: wait_for(&ready_file),
            database: folder.path().join("data/stacktoken.db"),
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
        let endpoint = Endpoint::from_shared(endpoint).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Makes the live tokens, and answers their secrets.
    async fn issue(&self) -> Vec<String> {
        let channel = self.channel().await;
        let limit = SetTokenLimitRequest {
            validate_only: false,
            stack_api_key: self.get("stack_api_key").to_owned(),
            max_tokens: Some(1000),
            reason: "a measurement".into(),
        };
        let limit = self.request("operator_jwt", limit);
        let mut stacks = StackServiceClient::new(channel.clone());
        stacks.set_token_limit(limit).await.unwrap();
        let mut tokens = TokenServiceClient::new(channel);
        let mut secrets = Vec::new();
        for at in 0..TOKENS {
            let request = v1::IssueRequest {
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
            };
            let issued = tokens.issue(self.request("owner_jwt", request)).await;
            secrets.push(issued.unwrap().into_inner().secret);
        }
        secrets
    }

    /// Puts the dead tokens in from outside, each with a secret and a use, in one transaction.
    async fn bury(&self) {
        let numbers = format!(
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {DEAD})"
        );
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
        let url = format!("sqlite://{}?mode=rw", self.database.display());
        let outside = sea_orm::Database::connect(url).await.unwrap();
        outside.execute_unprepared(&sql).await.unwrap();
        outside.close().await.unwrap();
    }

    /// How many tokens were deleted so far.
    fn purged(&self) -> u64 {
        let mut socket = TcpStream::connect(self.get("admin_address")).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let name = "stacktoken_purged_rows_total{table=\"tokens\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
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

/// What all streams ask by.
struct Load {
    server: Server,
    channels: Vec<Channel>,
    secrets: Vec<String>,
}

impl Load {
    /// Asks until it is told to stop; answers how long each answer took, in microseconds and
    /// in ascending order.
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

    /// Until so many tokens were deleted.
    async fn deleted(&self, wanted: u64) {
        while self.server.purged() < wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn p99(took: &[u32]) -> f64 {
    f64::from(took[took.len() * 99 / 100])
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
    println!("{CONNECTIONS} connections x {STREAMS} streams, {DEAD} dead tokens a round");
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        load.ask_until(tokio::time::sleep(WARM_UP)).await;
        let quiet = load.ask_until(tokio::time::sleep(MEASURED)).await;
        load.server.bury().await;
        let began = Instant::now();
        let wanted = DEAD * round as u64;
        let busy = load.ask_until(load.deleted(wanted)).await;
        let lasted = began.elapsed().as_secs_f64();
        let ratio = p99(&busy) / p99(&quiet);
        println!(
            "round {round}: p99 {:.0} us without ({:.0}/s), {:.0} us while deleting ({:.0}/s, \
             done in {lasted:.1} s), ratio {ratio:.2}",
            p99(&quiet),
            quiet.len() as f64 / MEASURED.as_secs_f64(),
            p99(&busy),
            busy.len() as f64 / lasted,
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    println!("median ratio {median:.2}, allowed {ALLOWED:.2}");
    if median <= ALLOWED {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
