//! Whoever reads what the process prints may stall. That costs lines, and nothing else.

use std::{
    io::Write as _,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    program::{Dev, folder, scrape},
    support::{Client, introspect_request, issue_request, requests::revoke_request},
};

/// How many changes, and as many verdicts, in each format of the log.
fn changes() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_STALLED_CHANGES").ok();
    set.map_or(200, |text| text.parse().unwrap())
}

/// More verdicts than lines fit into the queue.
const VERDICTS: usize = 5_000;
/// How many callers work at once.
const CALLERS: usize = 8;

/// A pipe that is full, and that nobody reads while the first half is kept.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // What a pipe of Linux holds.
    writer.write_all(&[b'x'; 64 * 1024]).unwrap();
    (reader, writer.into())
}

async fn change_and_ask(
    (mut owner, mut service): (Client, Client),
    (stack, caller): (String, usize),
    changes: usize,
) {
    for number in 0..changes {
        let request = issue_request(&stack, &format!("stalled {caller} {number}"));
        let issued = owner.tokens.issue(request).await.unwrap().into_inner();
        let ask = introspect_request(&stack, &issued.secret, &[]);
        let verdict = service.introspection.introspect(ask).await.unwrap();
        assert!(verdict.into_inner().active);
        let uid = issued.token.unwrap().token_uid;
        let request = revoke_request(&stack, &uid, "");
        owner.tokens.revoke(request).await.unwrap();
    }
}

async fn goes_on_with(format: &str) {
    let (_out, stdout) = full_pipe();
    let (_err, stderr) = full_pipe();
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command
            .args(["--log-format", format, "--log", "stacktoken=debug"])
            .stdout(stdout)
            .stderr(stderr);
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
        .expect("calls go on")
    {
        ended.unwrap();
    }
    println!("{format}: {} changes in {:?}", changes(), began.elapsed());

    let mut health = HealthClient::new(dev.channel().await);
    let request = HealthCheckRequest::default();
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let (_, metrics) = scrape(&dev, "").await;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("stacktoken_log_lines_dropped_total "))
        .expect("lines that were lost are counted");
    println!("{format}: {dropped} lines lost");

    let began = Instant::now();
    dev.signal(Signal::TERM);
    let grace = Instant::now() + Duration::from_secs(10);
    let ended = loop {
        match dev.child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < grace, "{format}: SIGTERM ends it"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    println!("{format}: ended {:?} after SIGTERM", began.elapsed());
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_nobody_reads_the_log_for_people() {
    goes_on_with("text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_nobody_reads_the_log_for_machines() {
    goes_on_with("json").await;
}

/// The last word of a process that fails goes to the same reader.
#[test]
fn a_start_that_fails_ends_when_nobody_reads_why() {
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
            panic!("it ends");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A reader that is gone: lines are lost, and nothing panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_when_the_reader_of_the_log_is_gone() {
    let (out, stdout) = full_pipe();
    let (err, stderr) = full_pipe();
    drop((out, err));
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command.stdout(stdout).stderr(stderr);
    });
    let stack = dev.get("stack_api_key").to_owned();
    let clients = (
        dev.client("owner_jwt").await,
        dev.client("service_jwt").await,
    );
    change_and_ask(clients, (stack, 0), 3).await;
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
}
