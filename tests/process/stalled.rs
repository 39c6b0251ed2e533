//! Tests that log lines are lost and counted, and calls are unaffected, if the reader of standard
//! error stalls.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    program::{Dev, folder, scrape},
    support::{Client, introspect_request, issue_request, reason, requests::revoke_request},
};

/// Returns how many changes, and how many verdicts, the test makes in each log format.
fn changes() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_STALLED_CHANGES").ok();
    set.map_or(200, |text| text.parse().unwrap())
}

/// The number of verdicts, which is more than the number of lines that the queue holds.
const VERDICTS: usize = 5_000;
/// The number of callers that call at the same time.
const CALLERS: usize = 8;

/// The capacity of a pipe on Linux, in bytes.
const PIPE: usize = 64 * 1024;

/// Returns a full pipe. Writing to it stalls as long as the reader is neither read nor dropped.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; PIPE]).unwrap();
    (reader, writer.into())
}

/// Returns how many log lines the program has counted as lost.
async fn dropped(dev: &Dev) -> usize {
    let (_, metrics) = scrape(dev, "").await;
    metrics
        .lines()
        .find_map(|line| line.strip_prefix("stacktoken_log_lines_dropped_total "))
        .expect("no metric of lost lines")
        .parse()
        .unwrap()
}

/// Makes a call and returns the response. Retries while the stack's queue is full, which can happen
/// on a busy machine. This is a macro, because the compiler cannot yet prove that the future of an
/// async closure is `Send`.
macro_rules! answered {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => assert_eq!(reason(&status), "OVERLOADED", "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
}

async fn change_and_ask(
    (owner, service): (Client, Client),
    (stack, caller): (String, usize),
    changes: usize,
) {
    let (mut owner, mut service) = (owner.tokens, service.introspection);
    for number in 0..changes {
        let request = issue_request(&stack, &format!("stalled {caller} {number}"));
        let issued = answered!(owner.issue(request.clone()));
        let ask = introspect_request(&stack, &issued.secret, &[]);
        assert!(answered!(service.introspect(ask.clone())).active);
        let uid = issued.token.unwrap().token_uid;
        let request = revoke_request(&stack, &uid, "");
        answered!(owner.revoke(request.clone()));
    }
}

async fn serves_with_unread_log(format: &str) {
    let (_out, stdout) = full_pipe();
    let (_err, stderr) = full_pipe();
    let folder = folder();
    let mut dev = Dev::start_printing_to(folder.path(), [stdout, stderr], |command| {
        command.args(["--log-format", format, "--log", "stacktoken=debug"]);
        // These limits prevent timeouts on a slow machine.
        command.args(["--deadline", "60s", "--freshness-bound", "30s"]);
    });
    let stack = dev.get("stack_api_key").to_owned();
    let clients = (
        dev.client("owner_jwt").await,
        dev.client("service_jwt").await,
    );
    let kept = clients
        .0
        .clone()
        .tokens
        .issue(issue_request(&stack, "kept"))
        .await;
    let ask = introspect_request(&stack, &kept.unwrap().into_inner().secret, &[]);
    let began = Instant::now();
    let mut calling = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let each = changes() / 2 / CALLERS;
        calling.spawn(change_and_ask(
            clients.clone(),
            (stack.clone(), caller),
            each,
        ));
        let (mut service, ask) = (clients.1.clone(), ask.clone());
        calling.spawn(async move {
            for _ in 0..VERDICTS / CALLERS {
                let asked = service.introspection.introspect(ask.clone());
                assert!(asked.await.unwrap().into_inner().active);
            }
        });
    }
    while let Some(ended) = tokio::time::timeout(Duration::from_mins(2), calling.join_next())
        .await
        .expect("the calls stalled")
    {
        ended.unwrap();
    }
    println!("{format}: {} changes in {:?}", changes(), began.elapsed());

    let mut health = HealthClient::new(dev.channel().await);
    let request = HealthCheckRequest::default();
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let dropped = dropped(&dev).await;
    println!("{format}: {dropped} lines lost");
    assert_ne!(dropped, 0, "{format}: no line was lost");

    let began = Instant::now();
    dev.signal(Signal::TERM);
    let grace = Instant::now() + Duration::from_secs(10);
    let ended = loop {
        match dev.child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(
                Instant::now() < grace,
                "{format}: still running after SIGTERM"
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!("{format}: ended {:?} after SIGTERM", began.elapsed());
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_text_logs_do_not_block_calls() {
    serves_with_unread_log("text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_json_logs_do_not_block_calls() {
    serves_with_unread_log("json").await;
}

/// Each call logs one line. At first the log is not read, so the queue fills up; then the log is
/// read to the end. The lines written and the lines counted as lost must add up to the number of
/// calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_written_or_counted_as_lost() {
    let (_out, stdout) = full_pipe();
    let (mut err, stderr) = full_pipe();
    let folder = folder();
    let mut dev = Dev::start_printing_to(folder.path(), [stdout, stderr], |command| {
        command.args(["--log", "off,stacktoken::server::rpc_middleware=debug"]);
        // This limit is higher than the rate that a fast machine reaches.
        command.args(["--unrecognized-per-second", "1000000"]);
        command.args(["--deadline", "60s"]);
    });
    let service = dev.client("service_jwt").await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let mut service = service.clone();
        let ask = introspect_request(dev.get("stack_api_key"), "junk", &[]);
        asking.spawn(async move {
            for _ in 0..VERDICTS / CALLERS {
                service.introspection.introspect(ask.clone()).await.unwrap();
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    let lost = dropped(&dev).await;
    assert_ne!(lost, 0, "no line was lost");
    let reading = std::thread::spawn(move || {
        let mut read = Vec::new();
        err.read_to_end(&mut read).unwrap();
        read
    });
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let read = reading.join().unwrap();
    let lines = String::from_utf8_lossy(&read[PIPE..]);
    assert!(lines.lines().all(|line| line.contains("Introspect")));
    let written = lines.lines().count();
    println!("{written} lines written, {lost} lost");
    assert_eq!(written + lost, VERDICTS);
}

/// The program writes the error of a failed start to the same stalled reader.
#[test]
fn a_failed_start_exits_with_an_unread_log() {
    let (_out, stdout) = full_pipe();
    let (_err, stderr) = full_pipe();
    let mut child = crate::program::program()
        .args(["serve", "--database-url", "sqlite:/nowhere/at/all.db"])
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let grace = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > grace {
            let _ = child.kill();
            panic!("the process did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// If the reader has closed the pipe, lines are lost, but nothing panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_the_reader_of_the_log_is_gone() {
    let (out, stdout) = full_pipe();
    let (err, stderr) = full_pipe();
    drop((out, err));
    let folder = folder();
    let mut dev = Dev::start_printing_to(folder.path(), [stdout, stderr], |_| {});
    let stack = dev.get("stack_api_key").to_owned();
    let clients = (
        dev.client("owner_jwt").await,
        dev.client("service_jwt").await,
    );
    change_and_ask(clients, (stack, 0), 3).await;
    assert_ne!(dropped(&dev).await, 0, "no line was lost");
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
}
