//! Runs `serve`, which logs to a file.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::admin,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{
    program::{folder, program, text},
    support::{Client, TestIssuer, clients::register_once_served, issuer::ISSUERS_FILE, person},
};

pub struct RunningServer {
    pub child: Child,
    pub port: u16,
    pub admin_port: u16,
    pub folder: TempDir,
    pub issuer: TestIssuer,
}

/// A directory with an issuers file and the keys of the issuer.
pub struct IssuersFolder {
    pub folder: TempDir,
    pub issuer: TestIssuer,
}

impl IssuersFolder {
    pub fn new() -> Self {
        let issuers_folder = Self {
            folder: folder(),
            issuer: TestIssuer::new(),
        };
        issuers_folder.write("issuers.toml", ISSUERS_FILE);
        issuers_folder.write("jwks.json", &issuers_folder.issuer.jwks());
        issuers_folder
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn append(&self, name: &str, text: &str) {
        let file = self.folder.path().join(name);
        let former = fs::read_to_string(&file).unwrap();
        fs::write(file, former + text).unwrap();
    }

    /// Returns the URL of an SQLite file in this directory.
    pub fn sqlite(&self) -> String {
        let file = self.folder.path().join("stacktoken.db");
        format!("sqlite:{}", file.display())
    }

    /// Runs a command on this database in this directory. Returns the exit code and the output.
    pub fn run_command(&self, url: &str, command: &[&str]) -> (Option<i32>, String) {
        let done = program()
            .current_dir(self.folder.path())
            .args(command)
            .env("STACKTOKEN_DATABASE_URL", url)
            .env("STACKTOKEN_ISSUERS", "issuers.toml")
            .output()
            .unwrap();
        (done.status.code(), text(&done.stdout) + &text(&done.stderr))
    }
}

impl RunningServer {
    /// Starts `serve` on this database, but does not wait until it is ready.
    pub fn start(url: &str, set: impl FnOnce(&mut Command)) -> Self {
        Self::start_on(IssuersFolder::new(), url, set)
    }

    pub fn start_on(
        issuers_folder: IssuersFolder,
        url: &str,
        set: impl FnOnce(&mut Command),
    ) -> Self {
        let IssuersFolder { folder, issuer } = issuers_folder;
        let (port, admin_port) = (free_port(), free_port());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = program();
        command
            .current_dir(folder.path())
            .args(["serve", "--issuers", "issuers.toml"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--admin-listen", &format!("127.0.0.1:{admin_port}")])
            .args(["--drain-delay", "0s"])
            .env("STACKTOKEN_DATABASE_URL", url)
            .stderr(log);
        set(&mut command);
        Self {
            child: command.spawn().unwrap(),
            port,
            admin_port,
            folder,
            issuer,
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(error) => assert!(Instant::now() < until, "{error}: {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn client(&self, jwt: String) -> Client {
        Client::new(self.channel().await, Some(format!("Bearer {jwt}")))
    }

    pub async fn user(&self, subject: &str) -> Client {
        self.client(self.issuer.user(subject, now())).await
    }

    pub async fn service(&self) -> Client {
        self.client(self.issuer.service("content-api", now())).await
    }

    /// Registers a stack with the user `owner` as its owner.
    pub async fn register(&self) -> String {
        let operator = self.issuer.operator("operator", now());
        let operator = self.client(operator).await;
        register_as(operator).await
    }

    /// Returns the response to `/readyz`, or an empty string if the port is closed.
    pub async fn ready(&self) -> String {
        self.get("/readyz").await
    }

    pub async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", self.admin_port)).await;
        let Ok(mut socket) = connected else {
            return String::new();
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        // The admin port answers every connection, even while the program is waiting for the
        // database.
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Waits until every service is SERVING.
    pub async fn serves(&self) {
        self.is_ready(true).await;
    }

    pub async fn is_ready(&self, ready: bool) {
        let until = Instant::now() + Duration::from_secs(30);
        let serving = |text: &str| text.contains(" SERVING") && !text.contains(" NOT_SERVING");
        loop {
            let text = self.ready().await;
            if !text.is_empty() && serving(&text) == ready {
                return;
            }
            assert!(Instant::now() < until, "{text} {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the sum of all samples of this metric.
    pub async fn counted(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await;
        let samples = text.lines().filter(|line| line.starts_with(name));
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Registers a stack with the user `owner` as its owner.
pub async fn register_as(mut operator: Client) -> String {
    let request = admin::v1::RegisterRequest {
        name: "Served".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    register_once_served(&mut operator, request).await
}

pub fn now() -> i64 {
    SystemClock::new().now().seconds()
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Applies the migrations to this database.
pub fn migrate(url: &str) {
    let done = program()
        .args(["migrate", "up"])
        .env("STACKTOKEN_DATABASE_URL", url)
        .output()
        .unwrap();
    let run_command = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{run_command}");
}
