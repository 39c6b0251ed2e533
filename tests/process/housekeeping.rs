//! Tests the housekeeping of the real program: that it may be killed while it runs, and what it
//! logs.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::{admin, v1},
};

use crate::{
    postgres,
    program::{ChildGuard, Dev, channel, folder, program},
    support::{
        Client, TestIssuer, at,
        clients::register_once_served,
        database::{DirectConnection, eventually, integrity},
        issue_request,
        issuer::ISSUERS_FILE,
        person,
    },
};

const DEAD: i64 = 20_000;
const KILLS: u64 = 8;

/// Returns the SQL that inserts tokens that were revoked long ago, each with a secret and one usage
/// row.
fn dead() -> String {
    let numbers =
        format!("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {DEAD})");
    let uid = "CAST(printf('%016d', n) AS BLOB)";
    format!(
        "BEGIN IMMEDIATE; \
         INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
         secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, \
         revoked_at, revoke_reason) {numbers} SELECT {uid}, (SELECT uid FROM stacks), 'n' || n, \
         '', '{{\"access\":\"READ\"}}', 1, 'abcd', 0, 'USER', 'i', 's', n, '' FROM t; \
         INSERT INTO token_secrets (digest, token_uid, generation, made_at) {numbers} \
         SELECT CAST(printf('%032d', n) AS BLOB), {uid}, 1, 0 FROM t; \
         INSERT INTO token_usage {numbers} SELECT {uid}, 'i', 's', 1 FROM t; COMMIT"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_program_is_killed_while_it_deletes_is_whole() {
    let folder = folder();
    let file = folder.path().join(".stacktoken/stacktoken.db");
    // The first run of housekeeping starts within a minute. The test does not wait for it.
    let mut dev = Dev::start(folder.path());
    let mut owner = dev.client("owner_jwt").await;
    let request = issue_request(dev.get("stack_api_key"), "live");
    let live = owner.tokens.issue(request).await.unwrap().into_inner();
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    let others = DirectConnection::of(&file).await;
    let living = others.number("SELECT count(*) FROM tokens").await;
    others.run(&dead()).await;
    drop(others);
    let often = |command: &mut std::process::Command| {
        command.env("STACKTOKEN_HOUSEKEEPING_EVERY", "100ms");
    };
    let (mut left, mut stopped_short) = (DEAD, 0);
    for round in 0..KILLS {
        let mut dev = Dev::start_with(folder.path(), often);
        // Each round kills the program at another point of a batch or of the pause after it.
        tokio::time::sleep(Duration::from_millis(60 + 37 * round)).await;
        dev.signal(Signal::KILL);
        dev.child.wait().unwrap();
        assert_eq!(integrity(&file).await, "ok");
        let database = DirectConnection::of(&file).await;
        let count = async |what: &str| database.number(&format!("SELECT count(*) {what}")).await;
        let orphans = count("FROM pragma_foreign_key_check").await;
        assert_eq!(orphans, 0);
        let dead = count("FROM tokens WHERE name LIKE 'n%' AND revoked_at < 100000").await;
        assert_eq!(count("FROM token_secrets WHERE made_at = 0").await, dead);
        assert_eq!(count("FROM token_usage WHERE last_used_at = 1").await, dead);
        assert_eq!(count("FROM tokens").await, dead + living);
        assert_eq!((left - dead) % 500, 0, "whole batches");
        stopped_short += u64::from(dead > 0 && dead < DEAD);
        left = dead;
    }
    assert!(stopped_short > 0, "no kill interrupted the deletion");
    let dev = Dev::start_with(folder.path(), often);
    let database = DirectConnection::of(&file).await;
    // A busy machine may need this much time.
    let until = Instant::now() + Duration::from_secs(60);
    while database.number("SELECT count(*) FROM tokens").await != living {
        assert!(Instant::now() < until, "the rest is not deleted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut service = dev.client("service_jwt").await;
    let question = crate::support::introspect_request(dev.get("stack_api_key"), &live.secret, &[]);
    let answer = service.introspection.introspect(question).await.unwrap();
    assert!(answer.into_inner().active);
}

/// Returns the lines in a log that report that this token expires.
fn log_lines_of(log: &Path, uid: &str) -> Vec<String> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains(uid));
    lines
        .filter(|line| line.contains("token expires within"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_restarted_replicas_report_an_expiring_token_once() {
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let folder = folder();
    let issuer = TestIssuer::new();
    fs::write(folder.path().join("issuers.toml"), ISSUERS_FILE).unwrap();
    fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    let log = folder.path().join("log");
    let command = |arguments: &[&str]| {
        let mut options = fs::OpenOptions::new();
        let log = options.create(true).append(true).open(&log).unwrap();
        let mut command = program();
        let url = postgres.url(postgres.port(), "tokens");
        command
            .current_dir(folder.path())
            .args(arguments)
            .env("STACKTOKEN_DATABASE_URL", url)
            .env("STACKTOKEN_ISSUERS", "issuers.toml")
            .env("STACKTOKEN_HOUSEKEEPING_EVERY", "100ms")
            .stdout(Stdio::null())
            .stderr(log);
        command
    };
    assert!(command(&["migrate", "up"]).status().unwrap().success());
    let serve = || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap().to_string();
        drop(port);
        let listen = ["serve", "--listen", &address];
        let admin = ["--admin-listen", "127.0.0.1:0"];
        let child = command(&[&listen[..], &admin[..]].concat()).spawn();
        (ChildGuard(child.unwrap()), address)
    };
    let now = SystemClock::new().now().seconds();
    let mut replicas = [serve(), serve()];
    let channel = channel(&replicas[0].1).await;
    let client = |jwt: String| Client::new(channel.clone(), Some(format!("Bearer {jwt}")));
    let (mut operator, mut owner) = (
        client(issuer.operator("operator", now)),
        client(issuer.user("owner", now)),
    );
    let request = admin::v1::RegisterRequest {
        name: "Told".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let stack = register_once_served(&mut operator, request).await;
    let mut uids = Vec::new();
    for (name, seconds) in [("first", 3 * 86_400), ("second", 20 * 86_400)] {
        let request = v1::IssueRequest {
            expiry: Some(at(now + seconds)),
            ..issue_request(&stack, name)
        };
        let issued = owner.tokens.issue(request).await.unwrap().into_inner();
        let uid = issued.token.unwrap().token_uid;
        eventually("it is logged", async || {
            log_lines_of(&log, &uid).first().cloned()
        })
        .await;
        uids.push(uid);
    }
    // Every replica checks many times, and again after its restart, so a second report would be
    // noticed.
    for replica in &mut replicas {
        *replica = serve();
        crate::program::channel(&replica.1).await;
    }
    let rounds = || {
        let log = fs::read_to_string(&log).unwrap();
        log.matches(" housekeeping ").count()
    };
    let (before, began) = (rounds(), Instant::now());
    while rounds() < before + 10 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "housekeeping did not run"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (uid, days) in uids.iter().zip([7, 30]) {
        let lines = log_lines_of(&log, uid);
        let [line] = &lines[..] else {
            panic!("{lines:#?}");
        };
        for part in [
            format!("token expires within {days} days"),
            format!("days={days}"),
            format!("stack_api_key=\"{stack}\""),
            "expires_at=20".to_owned(),
        ] {
            assert!(line.contains(&part), "{part}: {line}");
        }
    }
}
