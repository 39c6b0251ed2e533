//! Runs the program as a child process that ends with the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use stacktoken::domain::timestamp::Timestamp;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Client, skips::found_or_skip};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_stacktoken");

/// Returns a command for the program that does not inherit settings from the environment of the
/// test.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| {
        ["STACKTOKEN_", "OTEL_"]
            .iter()
            .any(|own| name.starts_with(own))
    }) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the program until it ends.
pub fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command through a wrapper. The wrapper gets the command and its arguments as its last
/// arguments. The output of the command must be set after this.
pub fn run_by(command: &mut Command, wrapper: &[&str]) {
    let wrapping = Command::new(wrapper[0]);
    let wrapped = std::mem::replace(command, wrapping);
    command.args(&wrapper[1..]).arg(wrapped.get_program());
    command.args(wrapped.get_args());
    for (name, value) in wrapped.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = wrapped.get_current_dir() {
        command.current_dir(folder);
    }
}

/// A child that is killed when the test ends, however it ends.
pub struct ChildGuard(pub Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `dev`.
pub struct Dev {
    pub child: Child,
    pub ready: Value,
    pub folder: PathBuf,
    /// The time from the start of the process until it wrote the ready file.
    pub took: Duration,
}

impl Dev {
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, |_| {})
    }

    pub fn start_with(folder: &Path, set: impl FnOnce(&mut Command)) -> Self {
        let log = |name: &str| {
            let mut options = fs::OpenOptions::new();
            options.create(true).append(true);
            options.open(folder.join(name)).unwrap().into()
        };
        Self::start_printing_to(folder, [log("stdout"), log("stderr")], set)
    }

    /// Starts `dev` with these outputs. `set` cannot change them.
    pub fn start_printing_to(
        folder: &Path,
        [stdout, stderr]: [Stdio; 2],
        set: impl FnOnce(&mut Command),
    ) -> Self {
        let ready_file = folder.join("ready.json");
        let _ = fs::remove_file(&ready_file);
        let mut command = program();
        command
            .current_dir(folder)
            .args([
                "dev",
                "--data-dir",
                ".stacktoken",
                "--listen",
                "127.0.0.1:0",
            ])
            .args([
                "--admin-listen",
                "127.0.0.1:0",
                "--ready-file",
                "ready.json",
            ])
            .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
            .env("STACKTOKEN_CHANGES_BURST", "1000000");
        set(&mut command);
        // The outputs are set last, because wrapping a command loses them.
        command.stdout(stdout).stderr(stderr);
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        while !ready_file.exists() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "dev ended: {}",
                fs::read_to_string(folder.join("stderr")).unwrap_or_default()
            );
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "dev did not start"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        let ready = serde_json::from_slice(&fs::read(&ready_file).unwrap()).unwrap();
        Self {
            child,
            ready,
            folder: folder.to_owned(),
            took,
        }
    }

    pub fn get(&self, name: &str) -> &str {
        self.ready[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    pub async fn channel(&self) -> Channel {
        channel(self.get("grpc_address")).await
    }

    /// Returns a client whose credential is this JWT from the ready file.
    pub async fn client(&self, jwt: &str) -> Client {
        Client::new(
            self.channel().await,
            Some(format!("Bearer {}", self.get(jwt))),
        )
    }

    pub fn signal(&self, signal: Signal) {
        signal_to(&self.child, signal);
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_to(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

pub async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < until, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the head and the body of `/metrics`. Each line in `headers` must end with CRLF.
pub async fn scrape(dev: &Dev, headers: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = dev.get("admin_address");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Creates a temporary directory.
pub fn folder() -> TempDir {
    TempDir::new().unwrap()
}

pub fn micros(at: &prost_types::Timestamp) -> i64 {
    Timestamp::from_parts(at.seconds, at.nanos)
        .unwrap()
        .as_micros()
}

/// Returns the first of these tools that is in `PATH`.
pub fn has_tool(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|tool| tool.exists());
    found_or_skip(found, &names.join(" or "))
}
