//! A replica that was stopped, as by a suspended host, and is asked the moment it goes on.

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
    postgres,
    program::{Running, channel, folder, program, signal_to},
    support::{
        Client, TestIssuer, introspect_request, issue_request, issuer::ISSUERS_FILE, person,
    },
};

const BOUND: Duration = Duration::from_secs(1);

/// How long each pause is; more rounds by STACKTOKEN_TEST_PAUSES.
fn pauses() -> Vec<Duration> {
    let rounds: u64 =
        std::env::var("STACKTOKEN_TEST_PAUSES").map_or(6, |count| count.parse().unwrap());
    (0..rounds)
        .map(|round| Duration::from_millis(500 + (round * 1700) % 4500))
        .collect()
}

struct Served(Running, String);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_paused_says_nothing_stale_when_it_goes_on() {
    let Some(postgres) = postgres::start() else {
        return;
    };
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
        Served(Running(child.unwrap()), address)
    };
    let (a, b) = (serve(), serve());
    let now = SystemClock::new().now().seconds();
    let as_a = |jwt: String, channel| Client::new(channel, Some(format!("Bearer {jwt}")));
    let (to_a, to_b) = (channel(&a.1).await, channel(&b.1).await);
    let mut operator = as_a(issuer.operator("operator", now), to_a.clone());
    let mut owner = as_a(issuer.user("owner", now), to_a);
    let mut service = as_a(issuer.service("content-api", now), to_b);
    let request = admin::v1::RegisterRequest {
        name: "Paused".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        token_limit: Some(1000),
        ..Default::default()
    };
    let stack = loop {
        match operator.stacks.register(request.clone()).await {
            Ok(registered) => break registered.into_inner().stack.unwrap().stack_api_key,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    };
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
                        assert!(active || !lives, "inactive, but it lives");
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
    drop((a, b));
}
