//! Runs Envoy as a child process, with a client that can send malformed requests.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{program::ChildGuard, support::skips::found_or_skip};

const CONFIG: &str = include_str!("../../docs/envoy.yaml");
const REPLICAS: &str = include_str!("../../docs/envoy-replicas.yaml");

/// Returns the Envoy binary that `.ci/run` installs with its Python packages, otherwise the one in
/// `PATH`.
pub fn binary() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_stacktoken"));
    let tools = target.ancestors().nth(2).unwrap().join("ci-tools/lib");
    let versions = fs::read_dir(tools).into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.exists());
    let found = found.or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&path).map(|folder| folder.join("envoy"));
        places.into_iter().find(|binary| binary.exists())
    });
    found_or_skip(found, "envoy (.ci/requirements.txt)")
}

/// The servers behind Envoy.
pub struct Upstreams<'a> {
    pub stacktoken: &'a str,
    pub jwt: &'a str,
    pub upstream: SocketAddr,
}

/// A running Envoy.
pub struct Envoy {
    child: ChildGuard,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with the documented configuration, except for the ports, the JWT and what
    /// `change` replaces.
    pub async fn start(
        binary: &Path,
        folder: &Path,
        behind: &Upstreams<'_>,
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let config = replace(
            change(CONFIG.to_owned()),
            "port_value: 9901",
            "port_value: 0",
        );
        let config = replace(config, "port_value: 8080", "port_value: 0");
        let stacktoken = format!("port_value: {}", port(behind.stacktoken));
        let config = replace(config, "port_value: 50051", &stacktoken);
        let upstream = format!("port_value: {}", behind.upstream.port());
        let config = replace(config, "port_value: 8081", &upstream);
        let config = replace(config, "SERVICE_JWT\"", &format!("{}\"", behind.jwt));
        Self::launch(binary, folder, &config).await
    }

    /// Starts Envoy in front of two replicas, with the documented configuration.
    pub async fn before_replicas(binary: &Path, folder: &Path, replicas: [&str; 2]) -> Self {
        let config = replace(REPLICAS.to_owned(), "port_value: 9902", "port_value: 0");
        let config = replace(config, "port_value: 50050", "port_value: 0");
        let to = |replica| format!("port_value: {}", port(replica));
        let config = replace(config, "port_value: 50061", &to(replicas[0]));
        let config = replace(config, "port_value: 50062", &to(replicas[1]));
        Self::launch(binary, folder, &config).await
    }

    async fn launch(binary: &Path, folder: &Path, config: &str) -> Self {
        let file = folder.join("envoy.yaml");
        fs::write(&file, config).unwrap();
        let told = folder.join("envoy.admin");
        let log = fs::File::create(folder.join("envoy.log")).unwrap();
        let child = Command::new(binary)
            // Envoy does not start with the preloaded library that sets the clock. It does not need
            // the library, because nothing here depends on Envoy's date.
            .env_remove("LD_PRELOAD")
            .arg("-c")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&told)
            .args([
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "-l",
                "warning",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self {
            child: ChildGuard(child),
            address: "0.0.0.0:0".parse().unwrap(),
            admin: "0.0.0.0:0".parse().unwrap(),
        };
        (envoy.admin, envoy.address) = envoy.listening(&told, folder).await;
        envoy
    }

    /// Returns how many replicas Envoy considers healthy.
    pub async fn healthy(&self) -> usize {
        let clusters = send(self.admin, "GET", "/clusters", &[]).await;
        clusters.map_or(0, |clusters| healthy(&clusters.text()))
    }

    /// Waits until Envoy accepts requests and considers stacktoken healthy. Returns the addresses
    /// of Envoy's admin port and of its listener.
    async fn listening(&mut self, told: &Path, folder: &Path) -> (SocketAddr, SocketAddr) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let ended = self.child.0.try_wait().unwrap();
            let log = || fs::read_to_string(folder.join("envoy.log")).unwrap();
            assert!(ended.is_none(), "Envoy ended: {}", log());
            assert!(Instant::now() < until, "Envoy is not ready: {}", log());
            let admin = fs::read_to_string(told).unwrap_or_default();
            if let Ok(admin) = admin.trim().parse::<SocketAddr>()
                && let Some(address) = ready(admin).await
            {
                return (admin, address);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a request exactly as given, and returns the response.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        send(self.address, method, path, headers).await.unwrap()
    }
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

fn replace(config: String, from: &str, to: &str) -> String {
    assert_eq!(config.matches(from).count(), 1, "{from} in {config}");
    config.replace(from, to)
}

async fn ready(admin: SocketAddr) -> Option<SocketAddr> {
    let answer = send(admin, "GET", "/listeners?format=json", &[]).await?;
    let listeners: Value = serde_json::from_slice(&answer.body).ok()?;
    let at = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(at["port_value"].as_u64()?).ok()?;
    let clusters = send(admin, "GET", "/clusters", &[]).await?.text();
    (healthy(&clusters) > 0).then(|| SocketAddr::from(([127, 0, 0, 1], port)))
}

fn healthy(clusters: &str) -> usize {
    let flags = clusters.lines().filter(|line| {
        line.starts_with("stacktoken::") && line.ends_with("::health_flags::healthy")
    });
    flags.count()
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(sent, _)| sent == name);
        found.map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the values of a header as the upstream got them. The name may be spelled with `-` or
    /// `_`.
    pub fn upstream_got(&self, name: &str) -> Vec<String> {
        let pairs: Vec<(String, String)> = serde_json::from_slice(&self.body).unwrap();
        let alike = pairs
            .into_iter()
            .filter(|(sent, _)| sent.replace('_', "-") == name);
        alike.map(|(_, value)| value).collect()
    }
}

/// Sends one handwritten request on a new connection, because a client library would correct it.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Answer> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: cms.test\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("content-length: 0\r\n\r\n");
    // The request is encoded in Latin-1, so that a test can send any byte.
    let bytes: Vec<u8> = request.chars().map(|c| c as u8).collect();
    socket.write_all(&bytes).await.ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = answer[end + 4..].to_vec();
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    if chunked {
        body = unchunked(&body)?;
    }
    Some(Answer {
        status,
        headers,
        body,
    })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|at| at == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}
