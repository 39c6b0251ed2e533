//! Tests a wall clock that is wrong, or that is set while the program runs. libfaketime shifts only
//! the wall clock of the real program, by an offset that it reads from a file.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::{admin, v1},
};
use tonic::Status;

use crate::{
    postgres,
    program::{channel, has_tool, program},
    served::{IssuersFolder, RunningServer},
    support::{
        Client, TestIssuer, at, introspect_request, issue_request, person, reason,
        requests::{Issued, rename_request},
    },
};

const HOURS: i64 = 7_200;

fn now() -> i64 {
    SystemClock::new().now().seconds()
}

/// The wall clock of a process. The file contains its offset in seconds.
struct WallClock(PathBuf);

impl WallClock {
    fn set(&self, seconds: i64) {
        fs::write(self.0.with_extension("new"), format!("{seconds:+}s\n")).unwrap();
        fs::rename(self.0.with_extension("new"), &self.0).unwrap();
    }

    fn put_into(&self, command: &mut Command) {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}

/// Starts a replica whose wall clock is off by this many seconds.
fn serve(url: &str, seconds: i64) -> (RunningServer, WallClock) {
    serve_on(IssuersFolder::new(), url, seconds)
}

fn serve_on(issuers_folder: IssuersFolder, url: &str, seconds: i64) -> (RunningServer, WallClock) {
    let wall = WallClock(issuers_folder.folder.path().join("wall"));
    wall.set(seconds);
    let served = RunningServer::start_on(issuers_folder, url, |command| wall.put_into(command));
    (served, wall)
}

async fn client(served: &RunningServer, jwt: impl Fn(&TestIssuer) -> String) -> Client {
    let channel = channel(&format!("127.0.0.1:{}", served.port)).await;
    Client::new(channel, Some(format!("Bearer {}", jwt(&served.issuer))))
}

/// Returns the response to a GET request to the admin port, or another text while the port is
/// closed.
async fn get(served: &RunningServer, path: &str) -> String {
    let address = ("127.0.0.1", served.admin_port);
    let Ok(mut socket) = tokio::net::TcpStream::connect(address).await else {
        return "not listening yet".into();
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

async fn is(served: &RunningServer, path: &str, wanted: bool, case: &str) {
    let began = Instant::now();
    loop {
        let ok = get(served, path).await.starts_with("HTTP/1.1 200");
        if ok == wanted {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{case}: {path} is not {wanted}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn error_text<T>(answered: &Result<T, Status>) -> String {
    match answered {
        Ok(_) => "OK".into(),
        Err(status) => reason(status),
    }
}

async fn verdict(client: &mut Client, stack: &str, secret: &str) -> String {
    let asked = introspect_request(stack, secret, &[]);
    match client.introspection.introspect(asked).await {
        Ok(answer) if answer.get_ref().active => "OK".into(),
        Ok(answer) => answer.get_ref().reason().as_str_name().into(),
        Err(status) => reason(&status),
    }
}

async fn register(served: &RunningServer, at: i64) -> String {
    let mut operator = client(served, |issuer| issuer.operator("operator", at)).await;
    let request = admin::v1::RegisterRequest {
        name: "Shop".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let registered = operator.stacks.register(request).await.unwrap();
    registered.into_inner().stack.unwrap().stack_api_key
}

async fn token_for_an_hour(owner: &mut Client, stack: &str, at_seconds: i64) -> Issued {
    let request = v1::IssueRequest {
        expiry: Some(at(at_seconds + 3_600)),
        ..issue_request(stack, "an hour")
    };
    owner
        .tokens
        .issue(request)
        .await
        .unwrap()
        .into_inner()
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_two_hours_ahead_ends_no_token_and_serves_once_it_is_corrected() {
    let (Some(_), Some(postgres)) = (has_tool(&["faketime"]), postgres::start()) else {
        return;
    };
    postgres.create("tokens");
    let url = postgres.url(postgres.port(), "tokens");
    let migrated = program()
        .args(["migrate", "up", "--database-url", &url])
        .output();
    assert!(migrated.unwrap().status.success());
    let ((a, _), (b, wall)) = (serve(&url, 0), serve(&url, HOURS));
    is(&a, "/readyz", true, "the right clock").await;
    let stack = register(&a, now()).await;
    let mut owner = client(&a, |issuer| issuer.user("owner", now())).await;
    let mut service = client(&a, |issuer| issuer.service("content-api", now())).await;
    let token = token_for_an_hour(&mut owner, &stack, now()).await;
    assert_eq!(verdict(&mut service, &stack, &token.secret).await, "OK");

    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        // The credentials are valid according to both clocks.
        for seconds in [now(), now() + HOURS] {
            let mut owner_at_b = client(&b, |issuer| issuer.user("owner", seconds)).await;
            let mut service_at_b =
                client(&b, |issuer| issuer.service("content-api", seconds)).await;
            let update = rename_request(&stack, &token.uid, "renamed");
            assert_ne!(
                error_text(&owner_at_b.tokens.update(update).await),
                "TOKEN_EXPIRED"
            );
            let answer = verdict(&mut service_at_b, &stack, &token.secret).await;
            assert!(
                ["CLOCK_SKEW", "NOT_FRESH"].contains(&answer.as_str()),
                "{answer}"
            );
        }
        assert!(!get(&b, "/readyz").await.starts_with("HTTP/1.1 200"));
    }
    let metrics = get(&b, "/metrics").await;
    assert!(metrics.contains("stacktoken_clock_wrong 1\n"), "{metrics}");
    let log = fs::read_to_string(b.folder.path().join("log")).unwrap();
    assert_eq!(
        log.matches("CLOCK_SKEW: the clock is wrong").count(),
        1,
        "{log}"
    );
    assert_eq!(verdict(&mut service, &stack, &token.secret).await, "OK");

    wall.set(0);
    is(&b, "/readyz", true, "corrected").await;
    is(&b, "/livez", true, "corrected").await;
    let mut owner_at_b = client(&b, |issuer| issuer.user("owner", now())).await;
    let mut service_at_b = client(&b, |issuer| issuer.service("content-api", now())).await;
    assert_eq!(
        verdict(&mut service_at_b, &stack, &token.secret).await,
        "OK"
    );
    let update = rename_request(&stack, &token.uid, "renamed again");
    assert_eq!(error_text(&owner_at_b.tokens.update(update).await), "OK");

    // The replica has answered with this clock, so setting the clock back is an error.
    wall.set(-HOURS);
    is(&b, "/livez", false, "set back").await;
    is(&b, "/readyz", false, "set back").await;
    assert_eq!(
        verdict(&mut service_at_b, &stack, &token.secret).await,
        "CLOCK_SKEW"
    );
    assert_eq!(verdict(&mut service, &stack, &token.secret).await, "OK");
    wall.set(0);
    is(&b, "/livez", true, "caught up").await;
    is(&b, "/readyz", true, "caught up").await;
    assert_eq!(
        verdict(&mut service_at_b, &stack, &token.secret).await,
        "OK"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_alone_that_is_set_back_refuses_until_a_restart() {
    let Some(_) = has_tool(&["faketime"]) else {
        return;
    };
    let issuers_folder = IssuersFolder::new();
    let url = issuers_folder.sqlite();
    let migrated = program()
        .args(["migrate", "up", "--database-url", &url])
        .output();
    assert!(migrated.unwrap().status.success());
    let (mut served, wall) = serve_on(issuers_folder, &url, HOURS);
    is(
        &served,
        "/readyz",
        true,
        "ahead, without a clock to compare",
    )
    .await;
    let ahead = now() + HOURS;
    let stack = register(&served, ahead).await;
    let mut owner = client(&served, |issuer| issuer.user("owner", ahead)).await;
    let mut service = client(&served, |issuer| issuer.service("content-api", ahead)).await;
    let token = token_for_an_hour(&mut owner, &stack, ahead).await;
    assert_eq!(verdict(&mut service, &stack, &token.secret).await, "OK");

    wall.set(0);
    is(&served, "/livez", false, "set back").await;
    is(&served, "/readyz", false, "set back").await;
    assert_eq!(
        verdict(&mut service, &stack, &token.secret).await,
        "CLOCK_SKEW"
    );
    let metrics = get(&served, "/metrics").await;
    assert!(
        metrics.contains("stacktoken_clock_steps_total 1\n"),
        "{metrics}"
    );
    served.child.kill().unwrap();
    served.child.wait().unwrap();

    let again = RunningServer::start(&url, |_| {});
    is(&again, "/readyz", true, "started again").await;
    let mut service = client(&again, |issuer| issuer.service("content-api", now())).await;
    assert_eq!(verdict(&mut service, &stack, &token.secret).await, "OK");
}
