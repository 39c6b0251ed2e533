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

#[allow(dead_code, reason = "each measurement needs its part")]
#[path = "support/size.rs"]
mod size;
#[allow(dead_code, reason = "each measurement needs its part")]
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
/// What has to be reached without an action, in verdicts a second.
const WANTED: f64 = 1_000_000.0;

/// Verdicts a second on this thread.
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
    // The lease may lapse for a moment on a busy machine; that is no hit.
    println!("  {rate:>10.0} verdicts/s, {missed} not from memory");
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
    println!("wanted: {WANTED:.0} verdicts/s without an action; best: {best:.0}");
    size::judge(best >= WANTED)
}
