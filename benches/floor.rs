//! A cached verdict against a bare echo: `cargo bench --bench floor`. Both are processes of
//! their own and are asked in turn by h2load (Debian: nghttp2-client) with the same headers,
//! a request and an answer of the same sizes. What counts is the ratio of requests a second,
//! of the slowest hundredth, and of processor time.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement may fail loudly"
)]

#[path = "floor/echo.rs"]
mod echo;
#[allow(dead_code, reason = "each measurement needs its part")]
#[path = "support/size.rs"]
mod size;
#[allow(dead_code, reason = "each measurement needs its part")]
mod support;

use std::{
    fs,
    process::{Command, ExitCode},
    time::Duration,
};

use prost::Message as _;
use stacktoken::grpc::pb::v1::{self, introspection_service_client::IntrospectionServiceClient};
use tempfile::TempDir;

use echo::Echo;
use support::{Server, cpu};

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const ROUNDS: usize = 5;
const HITS: &str = "stacktoken_cache_hits_total";
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);

/// What design §11 asks for, over the floor's: at least, at most, at most.
const WANTED_RATE: f64 = 0.90;
const WANTED_P99: f64 = 1.5;
const WANTED_CPU: f64 = 1.25;

/// One run of h2load against one process.
#[derive(Clone, Copy, Default)]
struct Run {
    rate: f64,
    p99_us: f64,
    cpu_us: f64,
}

struct Target<'a> {
    url: String,
    process: u32,
    jwt: &'a str,
}

fn h2load(target: &Target, body: &[u8]) -> Run {
    let folder = TempDir::new().unwrap();
    let (data, log) = (folder.path().join("body"), folder.path().join("log"));
    fs::write(&data, body).unwrap();
    load(target, &data, size::time(WARM_UP), None);
    let before = cpu(target.process);
    let answered = load(target, &data, size::time(MEASURED), Some(&log));
    let spent = cpu(target.process) - before;
    let mut took: Vec<u64> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| line.rsplit('\t').next().unwrap().parse().unwrap())
        .collect();
    took.sort_unstable();
    Run {
        rate: answered as f64 / size::time(MEASURED).as_secs_f64(),
        p99_us: took[took.len() * 99 / 100] as f64,
        cpu_us: spent.as_secs_f64() * 1e6 / answered as f64,
    }
}

/// How many answers there were.
fn load(
    target: &Target,
    data: &std::path::Path,
    during: Duration,
    log: Option<&std::path::Path>,
) -> u64 {
    let mut command = Command::new("h2load");
    command
        .args(["-c", &CONNECTIONS.to_string(), "-m", &STREAMS.to_string()])
        .args(["-t", "1", "-D", &during.as_secs().to_string()])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", &format!("authorization: Bearer {}", target.jwt)])
        .arg("-d")
        .arg(data);
    if let Some(log) = log {
        command.arg("--log-file").arg(log);
    }
    let output = command
        .arg(&target.url)
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

/// A message as it stands on the wire: not compressed, its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(size) = echo::asked_for() {
        echo::serve(size).await;
        return ExitCode::SUCCESS;
    }
    let server = Server::start(&[]);
    let secret = server.issue(1).await.remove(0);
    let question = v1::IntrospectRequest {
        token: secret,
        stack_api_key: server.get("stack_api_key").to_owned(),
        actions: support::actions(),
        min_revision: String::new(),
    };
    let mut client = IntrospectionServiceClient::new(server.channel().await);
    let mut answer = None;
    for _ in 0..2 {
        let request = server.request("service_jwt", question.clone());
        let answered = client.introspect(request).await.unwrap().into_inner();
        assert_eq!(answered.decision(), v1::Decision::Allow);
        answer = Some(answered);
    }
    let size = answer.unwrap().encoded_len();
    let body = framed(&question.encode_to_vec());
    let floor = Echo::start(size);
    let jwt = server.get("service_jwt");
    let path = "/stacktoken.v1.IntrospectionService/Introspect";
    let ours = Target {
        url: format!("http://{}{path}", server.get("grpc_address")),
        process: server.process(),
        jwt,
    };
    let echo = Target {
        url: format!("http://127.0.0.1:{}{}", floor.port, echo::PATH),
        process: floor.process(),
        jwt,
    };
    println!(
        "request {} bytes, answer {size} bytes, {CONNECTIONS} connections x {STREAMS}",
        body.len()
    );
    let hits_before = server.metric(HITS);
    let mut ratios = Vec::new();
    let mut asked = 0.0;
    for round in 1..=size::rounds(ROUNDS) {
        let (floor, own) = (h2load(&echo, &body), h2load(&ours, &body));
        asked += own.rate * size::time(MEASURED).as_secs_f64();
        let ratio = Run {
            rate: own.rate / floor.rate,
            p99_us: own.p99_us / floor.p99_us,
            cpu_us: own.cpu_us / floor.cpu_us,
        };
        println!(
            "round {round}: echo {:.0}/s, p99 {:.1} ms, {:.1} us; verdict {:.0}/s, p99 {:.1} ms, {:.1} us; \
             ratios {:.2}, {:.2}, {:.2}",
            floor.rate,
            floor.p99_us / 1e3,
            floor.cpu_us,
            own.rate,
            own.p99_us / 1e3,
            own.cpu_us,
            ratio.rate,
            ratio.p99_us,
            ratio.cpu_us
        );
        ratios.push(ratio);
    }
    // h2load sees no more than HTTP: that they were verdicts is for the server to say.
    let hits = server.metric(HITS) - hits_before;
    assert!(hits >= asked, "{hits} hits for {asked} answers");
    let median = |of: fn(&Run) -> f64| {
        let mut all: Vec<f64> = ratios.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (rate, p99, cpu) = (
        median(|r| r.rate),
        median(|r| r.p99_us),
        median(|r| r.cpu_us),
    );
    println!(
        "median ratios: requests/s {rate:.2} (wanted {WANTED_RATE}), p99 {p99:.2} (at most {WANTED_P99}), processor time {cpu:.2} (at most {WANTED_CPU})"
    );
    size::judge(rate >= WANTED_RATE && p99 <= WANTED_P99 && cpu <= WANTED_CPU)
}
