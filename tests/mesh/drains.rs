//! Tests that no call fails while replicas behind Envoy are stopped and restarted.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::admin,
};
use tokio::task::JoinSet;

use crate::{
    envoy::{Envoy, binary},
    postgres::{self, Postgres},
    program::{ChildGuard, channel, folder, program, signal_to},
    support::{
        Client, TestIssuer, introspect_request, issue_request, issuer::ISSUERS_FILE, person,
    },
};

const CALLERS: usize = 4;

/// Returns how often a replica is stopped. The figure in docs/reliability.md comes from a run with
/// 50.
fn drains() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_DRAINS").ok();
    set.map_or(8, |text| text.parse().unwrap())
}

/// Two replicas that use the same database.
struct Replicas {
    postgres: Postgres,
    folder: PathBuf,
    addresses: [String; 2],
}

impl Replicas {
    fn prepare(postgres: Postgres, folder: PathBuf, issuer: &TestIssuer) -> Self {
        postgres.create("tokens");
        fs::write(folder.join("issuers.toml"), ISSUERS_FILE).unwrap();
        fs::write(folder.join("jwks.json"), issuer.jwks()).unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, other) = (free(), free());
        let addresses = [one, other].map(|port| port.local_addr().unwrap().to_string());
        let replicas = Self {
            postgres,
            folder,
            addresses,
        };
        let mut migrated = replicas.start(&["migrate", "up"]);
        assert!(migrated.wait().unwrap().success());
        replicas
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let url = self.postgres.url(self.postgres.port(), "tokens");
        let mut log = fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.folder.join("log"));
        program()
            .current_dir(&self.folder)
            .args(arguments)
            .env("STACKTOKEN_DATABASE_URL", url)
            .env("STACKTOKEN_ISSUERS", "issuers.toml")
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap()
    }

    fn serve(&self, which: usize) -> ChildGuard {
        ChildGuard(self.start(&[
            "serve",
            "--listen",
            &self.addresses[which],
            "--admin-listen",
            "127.0.0.1:0",
            "--drain-delay",
            "2s",
        ]))
    }
}

async fn until_healthy(envoy: &Envoy, count: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while envoy.healthy().await != count {
        assert!(
            Instant::now() < until,
            "Envoy did not find {count} replicas healthy"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_a_replica_under_load_fails_no_call() {
    let (Some(envoy), Some(postgres)) = (binary(), postgres::start()) else {
        return;
    };
    let (folder, issuer) = (folder(), TestIssuer::new());
    let replicas = Replicas::prepare(postgres, folder.path().to_owned(), &issuer);
    let mut running = [replicas.serve(0), replicas.serve(1)];
    let [one, other] = &replicas.addresses;
    let envoy = Envoy::before_replicas(&envoy, folder.path(), [one, other]).await;
    until_healthy(&envoy, 2).await;
    let now = SystemClock::new().now().seconds();
    let through = channel(&envoy.address.to_string()).await;
    let client = |jwt: String| Client::new(through.clone(), Some(format!("Bearer {jwt}")));
    let request = admin::v1::RegisterRequest {
        name: "Drained".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let registered = client(issuer.operator("operator", now))
        .stacks
        .register(request)
        .await;
    let stack = registered
        .unwrap()
        .into_inner()
        .stack
        .unwrap()
        .stack_api_key;
    let issued = client(issuer.user("owner", now))
        .tokens
        .issue(issue_request(&stack, "a"))
        .await;
    let secret = issued.unwrap().into_inner().secret;

    let (stop, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = JoinSet::new();
    for _ in 0..CALLERS {
        let mut service = client(issuer.service("content-api", now));
        let request = introspect_request(&stack, &secret, &["entry.update"]);
        let (stop, calls) = (stop.clone(), calls.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = service.introspection.introspect(request.clone()).await;
                assert!(
                    answer
                        .expect("a call failed during a drain")
                        .into_inner()
                        .active
                );
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for drain in 0..drains() {
        let replica = &mut running[drain % 2];
        signal_to(&replica.0, Signal::TERM);
        let ended = tokio::task::block_in_place(|| replica.0.wait().unwrap());
        assert!(ended.success(), "drain {drain}: {ended}");
        *replica = replicas.serve(drain % 2);
        until_healthy(&envoy, 2).await;
        assert_eq!(load.len(), CALLERS);
        assert!(load.try_join_next().is_none(), "a caller has ended");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let calls = calls.load(Ordering::Relaxed);
    println!("{} drains, {calls} calls, none failed", drains());
    assert!(calls > 100 * drains(), "too little load: {calls} calls");
}
