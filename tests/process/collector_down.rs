//! Tests collectors that receive nothing: one that is not running, and one that accepts connections
//! but never reads. Neither a call nor the shutdown waits for them.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    program::{Dev, folder, scrape},
    support::{Client, database::eventually, introspect_request, issue_request},
};

const CALLS: usize = 500;

struct Subject {
    dev: Dev,
    client: Client,
    stack: String,
    secret: String,
    took: Vec<Duration>,
    _folder: tempfile::TempDir,
}

impl Subject {
    async fn start(endpoint: Option<&str>) -> Self {
        let folder = folder();
        let dev = Dev::start_with(folder.path(), |command| {
            if let Some(endpoint) = endpoint {
                command
                    .args(["--otlp-endpoint", endpoint])
                    .args(["--trace-sample-ratio", "1"]);
            }
        });
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let issued = owner.tokens.issue(issue_request(&stack, "unheard")).await;
        let secret = issued.unwrap().into_inner().secret;
        Self {
            client: dev.client("service_jwt").await,
            dev,
            stack,
            secret,
            took: Vec::new(),
            _folder: folder,
        }
    }

    async fn ask(&mut self) {
        let request = introspect_request(&self.stack, &self.secret, &[]);
        let began = Instant::now();
        let answer = self.client.introspection.introspect(request).await;
        self.took.push(began.elapsed());
        assert!(answer.unwrap().into_inner().active);
    }

    fn median(&mut self) -> Duration {
        self.took.sort();
        self.took[self.took.len() / 2]
    }

    async fn counted(&self, name: &str) -> u64 {
        let (_, body) = scrape(&self.dev, "").await;
        let mut lines = body.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_dead_or_never_reads_costs_spans_and_not_calls() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let black = format!("http://{}", hole.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((socket, _)) = hole.accept() {
            held.push(socket);
        }
    });

    let mut subjects = [
        Subject::start(None).await,
        Subject::start(Some(&dead)).await,
        Subject::start(Some(&black)).await,
    ];
    // The calls are interleaved, so that other load on the machine affects all subjects equally.
    for _ in 0..CALLS {
        for subject in &mut subjects {
            subject.ask().await;
        }
    }
    let [plain, dead, black] = subjects.each_mut().map(Subject::median);
    println!("median of {CALLS} calls: {plain:?}; collector dead {dead:?}, black hole {black:?}");
    assert!(dead <= plain * 3 && black <= plain * 3);

    let [_, dead, black] = &subjects;
    for subject in [dead, black] {
        let dropped = eventually("dropped spans are counted", async || {
            let dropped = subject.counted("stacktoken_spans_dropped_total").await;
            (dropped > 0).then_some(dropped)
        });
        println!("spans dropped: {}", dropped.await);
        assert!(
            subject
                .counted("stacktoken_span_export_failures_total")
                .await
                > 0
        );
    }
    for subject in &mut subjects {
        // This call leaves a span that is still unsent at the shutdown.
        subject.ask().await;
        let began = Instant::now();
        subject.dev.signal(Signal::TERM);
        assert!(subject.dev.child.wait().unwrap().success());
        println!("stopped in {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}
