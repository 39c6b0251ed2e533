//! Code that the benchmarks share. It starts a `dev` server in its own process, issues tokens, and
//! measures the CPU time of a process.

#[path = "../../tests/it/support/skips.rs"]
pub mod skips;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use stacktoken::grpc::pb::{
    admin::v1::{SetTokenLimitRequest, stack_service_client::StackServiceClient},
    v1::{self, token_service_client::TokenServiceClient},
};
use tempfile::TempDir;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// The process of the server. Dropping it kills the process.
pub struct Server {
    /// The time from the start of the process until its ready file was complete.
    pub took: Duration,
    child: Child,
    ready: Value,
    folder: TempDir,
}

impl Server {
    /// Starts a server. `settings` are environment variables.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let ready_file = folder.path().join("ready.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stacktoken"));
        settings_of_bench(&mut command);
        let began = Instant::now();
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
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = wait_for(&ready_file);
        Self {
            took: began.elapsed(),
            child,
            ready,
            folder,
        }
    }

    pub fn get(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }

    pub fn request<M>(&self, jwt: &str, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let credential = format!("Bearer {}", self.get(jwt)).parse().unwrap();
        request.metadata_mut().insert("authorization", credential);
        request
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = format!("http://{}", self.get("grpc_address"));
        Endpoint::from_shared(endpoint)
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Returns the resident memory of the process, in MiB.
    pub fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<f64>().unwrap() / 1024.0
    }

    /// Returns the path of the database file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("data/stacktoken.db")
    }

    /// Returns the value of a metric. `name` includes the labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).unwrap()
    }

    /// Returns the value of a metric, or 0 if the metric does not exist yet.
    pub fn metric_or_zero(&self, name: &str) -> f64 {
        self.find_metric(name).unwrap_or_default()
    }

    fn find_metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(self.get("admin_address")).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let name = format!("{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        Some(line?.parse().unwrap())
    }

    /// Issues tokens and returns their secrets.
    pub async fn issue(&self, count: usize) -> Vec<String> {
        let channel = self.channel().await;
        let mut stacks = StackServiceClient::new(channel.clone());
        let limit = SetTokenLimitRequest {
            stack_api_key: self.get("stack_api_key").to_owned(),
            max_tokens: Some(count.try_into().unwrap()),
            reason: "a measurement".into(),
            validate_only: false,
        };
        let limit = self.request("operator_jwt", limit);
        stacks.set_token_limit(limit).await.unwrap();
        let mut tokens = TokenServiceClient::new(channel);
        let mut secrets = Vec::new();
        for at in 0..count {
            let request = self.request("owner_jwt", self.token(&format!("measured {at}")));
            // The tokens that `dev` creates count toward the limit, so the last calls fail.
            let Ok(issued) = tokens.issue(request).await else {
                break;
            };
            secrets.push(issued.into_inner().secret);
        }
        assert!(secrets.len() + 50 > count, "only {}", secrets.len());
        secrets
    }

    /// Issues one token and returns its secret.
    pub async fn issue_one(&self, name: &str) -> String {
        let mut tokens = TokenServiceClient::new(self.channel().await);
        let request = self.request("owner_jwt", self.token(name));
        tokens.issue(request).await.unwrap().into_inner().secret
    }

    /// Issues a federated token and returns its id.
    pub async fn issue_federated(&self, name: &str, federation: v1::Federation) -> String {
        let mut tokens = TokenServiceClient::new(self.channel().await);
        let request = v1::IssueRequest {
            federation: Some(federation),
            ..self.token(name)
        };
        let issued = tokens.issue(self.request("owner_jwt", request)).await;
        issued.unwrap().into_inner().token.unwrap().token_uid
    }

    fn token(&self, name: &str) -> v1::IssueRequest {
        v1::IssueRequest {
            stack_api_key: self.get("stack_api_key").to_owned(),
            name: name.to_owned(),
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

/// Sets the environment variables of a command for a measurement.
pub fn settings_of_bench(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACKTOKEN_")) {
        command.env_remove(name);
    }
    command
        // The default rate limit would slow down issuing the tokens.
        .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
        .env("STACKTOKEN_CHANGES_BURST", "1000000")
        // No connection may be closed during a measurement.
        .env("STACKTOKEN_MAX_CONNECTION_AGE", "2h");
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
    panic!("the server did not become ready");
}

/// Returns the actions of each question, which are a single write.
pub fn actions() -> Vec<v1::ActionQuestion> {
    vec![v1::ActionQuestion {
        name: "entry.update".into(),
        branch: "main".into(),
        ..Default::default()
    }]
}

/// Returns the CPU time that a process has used.
pub fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on Linux.
    Duration::from_millis(ticks * 10)
}
