//! Tests a replica that was stopped, as on a suspended host, and gets calls when it continues.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::{admin, v1},
};
use tonic::Code;

use crate::{
    postgres::{self, Postgres},
    program::{ChildGuard, channel, folder, program, signal_to},
    support::{
        Client, TestIssuer,
        clients::register_once_served,
        introspect_request, issue_request,
        issuer::ISSUERS_FILE,
        person, reason,
        requests::{rename_request, revoke_request},
    },
};

const BOUND: Duration = Duration::from_secs(1);

/// Returns the length of each pause. STACKTOKEN_TEST_PAUSES sets the number of pauses.
fn pauses() -> Vec<Duration> {
    let rounds: u64 =
        std::env::var("STACKTOKEN_TEST_PAUSES").map_or(6, |count| count.parse().unwrap());
    (0..rounds)
        .map(|round| Duration::from_millis(500 + (round * 1700) % 4500))
        .collect()
}

struct RunningServer(ChildGuard, String);

/// Two replicas that run as processes, and a stack.
struct TwoReplicas {
    postgres: Postgres,
    a: RunningServer,
    b: RunningServer,
    owner_at_a: Client,
    owner_at_b: Client,
    service_at_b: Client,
    stack: String,
    _folder: tempfile::TempDir,
}

async fn pair() -> Option<TwoReplicas> {
    let postgres = postgres::start()?;
    postgres.create("tokens");
    let folder = folder();
    let issuer = TestIssuer::new();
    fs::write(folder.path().join("issuers.toml"), ISSUERS_FILE).unwrap();
    fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = program();
        command
            .current_dir(folder.path())
            .args(arguments)
            .env(
                "STACKTOKEN_DATABASE_URL",
                postgres.url(postgres.port(), "tokens"),
            )
            .env("STACKTOKEN_ISSUERS", "issuers.toml")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    assert!(command(&["migrate", "up"]).status().unwrap().success());
    let serve = || {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = command(&[
            "serve",
            "--listen",
            &address,
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .spawn();
        RunningServer(ChildGuard(child.unwrap()), address)
    };
    let (a, b) = (serve(), serve());
    let now = SystemClock::new().now().seconds();
    let as_a = |jwt: String, channel| Client::new(channel, Some(format!("Bearer {jwt}")));
    let (to_a, to_b) = (channel(&a.1).await, channel(&b.1).await);
    let mut operator = as_a(issuer.operator("operator", now), to_a.clone());
    let owner_at_a = as_a(issuer.user("owner", now), to_a);
    let owner_at_b = as_a(issuer.user("owner", now), to_b.clone());
    let service_at_b = as_a(issuer.service("content-api", now), to_b);
    let request = admin::v1::RegisterRequest {
        name: "Paused".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        token_limit: Some(1000),
        ..Default::default()
    };
    let stack = register_once_served(&mut operator, request).await;
    Some(TwoReplicas {
        postgres,
        a,
        b,
        owner_at_a,
        owner_at_b,
        service_at_b,
        stack,
        _folder: folder,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_paused_says_nothing_stale_when_it_goes_on() {
    let Some(pair) = pair().await else {
        return;
    };
    let (mut owner, mut service) = (pair.owner_at_a.clone(), pair.service_at_b.clone());
    let (stack, b) = (pair.stack.clone(), &pair.b);
    let (mut refused, mut answered) = (0, 0);
    for (round, pause) in pauses().into_iter().enumerate() {
        let live = owner
            .tokens
            .issue(issue_request(&stack, &format!("live {round}")))
            .await
            .unwrap()
            .into_inner();
        let dead = owner
            .tokens
            .issue(issue_request(&stack, &format!("dead {round}")))
            .await
            .unwrap()
            .into_inner();
        for secret in [&live.secret, &dead.secret] {
            while !service
                .introspection
                .introspect(introspect_request(&stack, secret, &[]))
                .await
                .is_ok_and(|a| a.into_inner().active)
            {}
        }
        signal_to(&b.0.0, Signal::STOP);
        let uid = dead.token.unwrap().token_uid;
        let revoke = v1::RevokeRequest {
            stack_api_key: stack.clone(),
            token_uid: uid,
            reason: String::new(),
            validate_only: false,
            etag: String::new(),
        };
        owner.tokens.revoke(revoke).await.unwrap();
        let revoked = Instant::now();
        tokio::time::sleep(pause).await;
        signal_to(&b.0.0, Signal::CONT);
        for _ in 0..20 {
            for (secret, lives) in [(&dead.secret, false), (&live.secret, true)] {
                let begun = Instant::now();
                match service
                    .introspection
                    .introspect(introspect_request(&stack, secret, &[]))
                    .await
                {
                    Ok(answer) => {
                        answered += 1;
                        let active = answer.into_inner().active;
                        assert!(active || !lives, "inactive although it is live");
                        assert!(
                            lives || !active || begun <= revoked + BOUND,
                            "stale after {pause:?}"
                        );
                    }
                    Err(status) => {
                        refused += 1;
                        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    }
                }
            }
        }
    }
    println!(
        "{} pauses: {answered} answers, {refused} refused, none stale",
        pauses().len()
    );
}

/// The maximum time for which a stopped replica may keep a lock.
const FREE_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stopped_inside_a_change_frees_its_stack_and_does_not_take_it_for_done() {
    let Some(pair) = pair().await else {
        return;
    };
    let TwoReplicas {
        postgres, stack, ..
    } = &pair;
    let (mut owner, mut owner_at_b) = (pair.owner_at_a.clone(), pair.owner_at_b.clone());
    let issued = owner.tokens.issue(issue_request(stack, "before")).await;
    let uid = issued.unwrap().into_inner().token.unwrap().token_uid;
    let lock = format!("UPDATE stacks SET name = name WHERE key = '{stack}'");
    let held = postgres.hold("tokens", &lock);
    let rename = rename_request(stack, &uid, "after");
    let update = tokio::spawn(async move { owner.tokens.update(rename).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while postgres.run("tokens", waits) == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    signal_to(&pair.a.0.0, Signal::STOP);
    held.commit();
    let stopped = Instant::now();
    while let Err(status) = owner_at_b
        .tokens
        .revoke(revoke_request(stack, &uid, ""))
        .await
    {
        assert!(stopped.elapsed() < FREE_WITHIN, "{status:?}");
    }
    let freed = stopped.elapsed();
    signal_to(&pair.a.0.0, Signal::CONT);
    // If its deadline permits, the update is retried after the pause and then finds that the token
    // is revoked.
    let status = update.await.unwrap().unwrap_err();
    let undone = [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code());
    assert!(undone || reason(&status) == "TOKEN_REVOKED", "{status:?}");
    let sql = format!("SELECT name FROM tokens WHERE uid = '{uid}'");
    assert_eq!(postgres.run("tokens", &sql), "before");
    println!("revoked at the other replica {freed:?} after the first was stopped");
}
