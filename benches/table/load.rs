//! Runs h2load (Debian: nghttp2-client) against one process.

use std::{fs, path::Path, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{size, support::cpu};

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(2);

/// The results of one run.
#[derive(Clone, Copy)]
pub struct Run {
    /// Requests per second.
    pub rate: f64,
    /// The 99th percentile of the latencies, in microseconds.
    pub p99_us: f64,
    /// The CPU time of the process per request, in microseconds.
    pub cpu_us: f64,
}

/// How a process is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// Forms over HTTP/1.1, on connections that are kept alive and not pipelined.
    Http1,
}

/// The process to call, and the calls to make.
pub struct Target {
    pub url: String,
    pub process: u32,
    /// The JWT that is sent in `authorization`. If empty, none is sent.
    pub jwt: String,
    pub protocol: Protocol,
    /// The message with gRPC's length prefix, or a form.
    pub body: Vec<u8>,
    pub connections: usize,
    pub streams: usize,
}

impl Target {
    /// Returns the number of requests including the warm-up, and the results without the warm-up.
    pub fn measure(&self) -> (u64, Run) {
        let folder = TempDir::new().unwrap();
        let (body, log) = (folder.path().join("body"), folder.path().join("log"));
        fs::write(&body, &self.body).unwrap();
        let warmed = self.load(&body, size::time(WARM_UP), None);
        let before = cpu(self.process);
        let measured = size::time(MEASURED);
        let answered = self.load(&body, measured, Some(&log));
        let spent = cpu(self.process) - before;
        let log = fs::read_to_string(&log).unwrap();
        let took = log
            .lines()
            .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap());
        let mut took: Vec<u64> = took.collect();
        took.sort_unstable();
        let run = Run {
            rate: answered as f64 / measured.as_secs_f64(),
            p99_us: took[took.len() * 99 / 100] as f64,
            cpu_us: spent.as_secs_f64() * 1e6 / answered as f64,
        };
        (warmed + answered, run)
    }

    fn load(&self, body: &Path, during: Duration, log: Option<&Path>) -> u64 {
        let mut command = Command::new("h2load");
        command
            .args(["-c", &self.connections.to_string()])
            .args(["-m", &self.streams.to_string()])
            .args(["-t", "1", "-D", &during.as_secs().to_string()])
            .arg("-d")
            .arg(body);
        match self.protocol {
            Protocol::Grpc => {
                command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            }
            Protocol::Http1 => command.args([
                "--h1",
                "-H",
                "content-type: application/x-www-form-urlencoded",
            ]),
        };
        if !self.jwt.is_empty() {
            command.args(["-H", &format!("authorization: Bearer {}", self.jwt)]);
        }
        if let Some(log) = log {
            command.arg("--log-file").arg(log);
        }
        let output = command
            .arg(&self.url)
            .output()
            .expect("h2load is not installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("requests:"))
            .expect("h2load says how many requests");
        let number = |what: &str| {
            let before = line.split(what).next().unwrap();
            before
                .split([' ', ','])
                .rfind(|word| !word.is_empty())
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert_eq!(number(" failed"), 0, "{text}");
        number(" succeeded")
    }
}
