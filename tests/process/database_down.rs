//! Tests `serve` with a database that is unreachable or unsuitable at the start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    postgres::{self, Postgres},
    program::signal_to,
    serve::SERVE,
    served::{IssuersFolder, RunningServer, migrate},
    support::{Client, introspect_request, issue_request, reason},
};

pub const DATABASE: &str = "tokens";

/// Starts PostgreSQL and creates a database with the schema. Returns the PostgreSQL server and the
/// URL of the database.
pub fn database() -> Option<(Postgres, String)> {
    let postgres = postgres::start()?;
    postgres.create(DATABASE);
    let url = postgres.url(postgres.port(), DATABASE);
    migrate(&url);
    Some((postgres, url))
}

/// Runs a command on this database in a temporary directory. Returns the exit code and the output.
fn run_command(url: &str, command: &[&str]) -> (Option<i32>, String) {
    IssuersFolder::new().run_command(url, command)
}

async fn health(served: &RunningServer) -> ServingStatus {
    let mut health = HealthClient::new(served.channel().await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    answer.into_inner().status()
}

/// Waits until the log contains this text.
pub async fn wait_for_log(served: &RunningServer, what: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !served.log().contains(what) {
        assert!(Instant::now() < until, "{what}: {}", served.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_waited_for_and_named_once() {
    let Some((mut postgres, url)) = database() else {
        return;
    };
    postgres.stop();
    let mut served = RunningServer::start(&url, |_| {});
    wait_for_log(&served, "Connection refused").await;
    assert_eq!(health(&served).await, ServingStatus::NotServing);
    assert!(served.get("/livez").await.contains("200 OK"));
    assert!(served.ready().await.contains("503"));
    let mut anybody = Client::new(served.channel().await, None);
    let asked = introspect_request("blt0000000000000000", "junk", &[]);
    let refused = anybody.introspection.introspect(asked).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    // This is long enough for several more attempts to connect.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let log = served.log();
    assert_eq!(log.matches("Connection refused").count(), 1, "{log}");
    assert!(!log.contains("timed out"), "{log}");
    postgres.launch();
    served.serves().await;
    let stack = served.register().await;
    let mut owner = served.user("owner").await;
    owner
        .tokens
        .issue(issue_request(&stack, "after"))
        .await
        .unwrap();
    signal_to(&served.child, Signal::TERM);
    assert!(served.child.wait().unwrap().success());
}

/// The number of callers that call in a loop while the database comes back. Each has its own
/// connection.
const CALLERS: usize = 8;

/// Calls until a call succeeds. Asserts that the server refuses each earlier call without closing
/// the connection. Returns how many calls were refused.
async fn calls_until_answered(mut client: Client) -> usize {
    let until = Instant::now() + Duration::from_secs(60);
    for refused in 0.. {
        let ask = introspect_request("blt0000000000000000", "junk", &[]);
        let Err(status) = client.introspection.introspect(ask).await else {
            return refused;
        };
        let is_cut_off = std::error::Error::source(&status).is_some();
        assert!(!is_cut_off, "after {refused} refusals: {status:?}");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(Instant::now() < until, "{status:?}");
    }
    unreachable!("the range is endless")
}

/// Returns a channel to the server, and the number of connections that it has opened.
fn counting(served: &RunningServer) -> (Channel, Arc<AtomicUsize>) {
    let connected = Arc::new(AtomicUsize::new(0));
    let (port, counted) = (served.port, connected.clone());
    let connect = tower::service_fn(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", port));
        async move { socket.await.map(hyper_util::rt::TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://serve.test");
    (endpoint.connect_with_connector_lazy(connect), connected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_closed_when_the_database_comes() {
    let Some((mut postgres, url)) = database() else {
        return;
    };
    postgres.stop();
    let served = RunningServer::start(&url, |_| {});
    wait_for_log(&served, "Connection refused").await;
    let jwt = served.issuer.service("content-api", crate::served::now());
    let authorization = Some(format!("Bearer {jwt}"));
    let mut calling = tokio::task::JoinSet::new();
    let mut connected = Vec::new();
    for _ in 0..CALLERS {
        let (channel, count) = counting(&served);
        calling.spawn(calls_until_answered(Client::new(
            channel,
            authorization.clone(),
        )));
        connected.push(count);
    }
    let mut health = HealthClient::new(served.channel().await);
    let watching = health.watch(HealthCheckRequest::default()).await;
    let mut run_command = watching.unwrap().into_inner();
    let mut next = async || run_command.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::NotServing);
    tokio::time::sleep(Duration::from_secs(1)).await;
    postgres.launch();
    assert_eq!(next().await, ServingStatus::Serving);
    let refused = calling.join_all().await;
    println!("refused before the first answer: {refused:?}");
    assert!(refused.iter().all(|count| *count > 0), "{refused:?}");
    for count in connected {
        assert_eq!(count.load(Ordering::Relaxed), 1, "the connection is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_waits_for_its_database_can_be_stopped() {
    let port = crate::served::free_port();
    let mut served =
        RunningServer::start(&format!("postgres://nobody@127.0.0.1:{port}/none"), |_| {});
    wait_for_log(&served, "Connection refused").await;
    let began = Instant::now();
    signal_to(&served.child, Signal::TERM);
    assert!(served.child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_read_only_is_waited_for_and_named() {
    let Some((postgres, url)) = database() else {
        return;
    };
    let set = |to: &str| {
        postgres.run(
            "postgres",
            &format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = {to}"),
        )
    };
    set("on");
    let served = RunningServer::start(&url, |_| {});
    wait_for_log(&served, "is read-only: default_transaction_read_only is on").await;
    assert_eq!(health(&served).await, ServingStatus::NotServing);
    let (code, run_command) = run_command(&url, &["migrate", "up"]);
    assert_eq!(
        (code, run_command.matches("read-only").count()),
        (Some(1), 1),
        "{run_command}"
    );
    set("off");
    served.serves().await;
}

#[test]
fn what_waiting_does_not_mend_stops_the_start_and_is_named_once() {
    let Some((postgres, url)) = database() else {
        return;
    };
    let other = |from: &str, to: &str| url.replace(from, to);
    for (url, cause) in [
        (other("/tokens", "/absent"), "no database of this name"),
        (other("postgres@", "nobody:hunter2@"), "has no such role"),
    ] {
        for command in [&SERVE[..], &["migrate", "up"], &["migrate", "status"]] {
            let (code, run_command) = run_command(&url, command);
            assert_eq!(
                (code, run_command.lines().count()),
                (Some(1), 1),
                "{run_command}"
            );
            assert_eq!(run_command.matches(cause).count(), 1, "{run_command}");
            assert!(run_command.contains("--database-url"), "{run_command}");
            assert!(
                !run_command.contains("hunter2") && !run_command.contains("timed out"),
                "{run_command}"
            );
        }
    }
    drop(postgres);
}

/// If a password is not percent-encoded, its parts may be parsed as parameters, as a fragment or as
/// the database name. None of these parts may be printed.
#[test]
fn nothing_of_a_url_that_is_refused_is_printed() {
    for url in [
        "postgres://app:pa55@db.invalid/tokens?sslpassword=hunter2",
        "postgres://app:pa55@db.invalid/tokens?hunter2",
        "postgres://app:55?hunter2@db.invalid/tokens",
        "postgres://app:55#hunter2@db.invalid/tokens",
        "postgres://app:55/hunter2@db.invalid/tokens",
        "postgres://app:hunter2?x@db.invalid/tokens",
        "postgres://app:x@db.invalid/tokens?sslmode=hunter2",
    ] {
        for command in [
            &SERVE[..],
            &["migrate", "up"],
            &["--log", "trace", "migrate", "status"],
        ] {
            let (code, run_command) = run_command(url, command);
            assert_eq!(
                (code, run_command.lines().count()),
                (Some(2), 1),
                "{url}: {run_command}"
            );
            assert!(run_command.contains("--database-url"), "{run_command}");
            for piece in ["hunter2", "pa55", "db.invalid"] {
                assert!(!run_command.contains(piece), "{url}: {run_command}");
            }
        }
    }
}

/// The start takes longer than the pool's own time limit for a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_its_time_stops_nothing() {
    let Some((postgres, _)) = database() else {
        return;
    };
    let link = crate::proxy::Proxy::start(postgres.port()).await;
    link.set(crate::proxy::Link::Slow(Duration::from_millis(600)));
    let url = postgres.url(link.port, DATABASE);
    let asked = tokio::task::spawn_blocking(move || run_command(&url, &["migrate", "status"]));
    let (code, run_command) = asked.await.unwrap();
    assert_eq!(code, Some(0), "{run_command}");
}
