//! Measures how many verdicts per second the client for Rust services answers from its cache on one
//! core, while it watches a real server. Run it with `cargo bench --features client --bench
//! client`.
#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark may panic"
)]

#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "support/size.rs"]
mod size;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use stacktoken::domain::verdict::ActionQuestion;
use stacktoken_client::{Client, Question};

use support::Server;

const TOKENS: usize = 200;
const ROUNDS: usize = 3;
const MEASURED: Duration = Duration::from_secs(2);
/// The required rate of verdicts without an action, in verdicts per second.
const WANTED: f64 = 1_000_000.0;

/// Measures cached verdicts on this thread and returns their number per second.
fn measure(client: &Client, secrets: &[String], key: &str, actions: &[ActionQuestion]) -> f64 {
    let (began, mut answered, mut missed) = (Instant::now(), 0_u32, 0_u32);
    while began.elapsed() < size::time(MEASURED) {
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
    // On a busy machine the lease may lapse briefly. Verdicts in that time are counted as misses.
    println!("  {rate:>10.0} verdicts/s, {missed} cache misses");
    rate
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let server = Server::start(&[]);
    let secrets = server.issue(size::count(TOKENS)).await;
    let client = Client::builder(format!("http://{}", server.get("grpc_address")))
        .bearer(server.get("service_jwt"))
        .build()
        .unwrap();
    while client.watch_fault().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let key = server.get("stack_api_key");
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
    for round in 1..=size::rounds(ROUNDS) {
        println!("round {round}: no action, then one action");
        best = best.max(measure(&client, &secrets, key, &[]));
        measure(&client, &secrets, key, &action);
    }
    println!("required: {WANTED:.0} verdicts/s without an action; best: {best:.0}");
    size::judge(best >= WANTED)
}
