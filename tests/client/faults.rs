//! Tests faults between a client and its servers. Under any of them, a question that starts later
//! than the freshness bound after a change is never answered with the old verdict, and a question
//! that no server decided gets no verdict.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::admin::v1 as admin,
};
use stacktoken_client::{Client, Error, Question};
use tempfile::TempDir;

use crate::{
    changes::{BOUND, client_at},
    cluster::Cluster,
    golden::client_of,
    postgres::{self, Postgres},
    program::{ChildGuard, Dev, channel, program, signal_to},
    proxy::{Link, Proxy},
    scripted::until,
    support::{
        self, TestIssuer, TestServer, issue_request,
        issuer::ISSUERS_FILE,
        person,
        requests::{Issued, revoke_request},
    },
};

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Creates a client of one server behind a proxy, with a short timeout.
async fn through(server: &TestServer, proxy: &Proxy) -> Client {
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let client = Client::builder(format!("http://127.0.0.1:{}", proxy.port))
        .bearer(jwt)
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    until("the client watches", || client.watch_fault().is_none()).await;
    client
}

async fn fill_cache(client: &Client, question: &Question<'_>) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !client
        .introspect(question)
        .await
        .is_ok_and(|answer| answer.active() && answer.from_memory())
    {
        assert!(Instant::now() < give_up, "{:?}", client.watch_fault());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The outcomes of the questions asked after an acknowledgement.
#[derive(Debug, Default)]
struct ObservedAnswers {
    active: u32,
    inactive: u32,
    undecided: u32,
    last_active: Duration,
}

async fn ask_during(client: &Client, question: &Question<'_>, length: Duration) -> ObservedAnswers {
    let (acknowledged, mut seen) = (Instant::now(), ObservedAnswers::default());
    while acknowledged.elapsed() < length {
        let begun = acknowledged.elapsed();
        match client.introspect(question).await {
            Ok(answer) if answer.active() => {
                assert!(
                    begun <= BOUND,
                    "active, asked {begun:?} after the acknowledgement"
                );
                seen.active += 1;
                seen.last_active = begun;
            }
            Ok(_) => seen.inactive += 1,
            Err(error) => {
                assert!(error.is_undecided(), "{error:?}");
                seen.undecided += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// Every connection of the client stays open, but all data on it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_a_black_hole_answers_within_the_bound_and_then_says_that_it_cannot() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(port(&server.address)).await;
    let client = through(&server, &proxy).await;
    let token = server.token("swallowed").await;
    let question = Question::new(&token.secret, &server.stack);
    fill_cache(&client, &question).await;
    proxy.set(Link::BlackHole);
    server.revoke(&token.uid).await;
    let seen = ask_during(&client, &question, 3 * BOUND).await;
    println!("in a black hole: {seen:?}");
    assert!(
        seen.active > 0,
        "the cache is used until the lease expires: {seen:?}"
    );
    assert!(seen.undecided > 0 && seen.inactive == 0, "{seen:?}");
    assert!(client.watch_fault().is_some());
    proxy.set(Link::Cut);
    proxy.set(Link::Up);
    until("the client watches again", || {
        client.watch_fault().is_none()
    })
    .await;
    assert!(!client.introspect(&question).await.unwrap().active());
}

/// Data is dropped only on the connection of the stream; questions use another connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_stream_is_swallowed_asks_over_the_wire_and_watches_elsewhere() {
    let server = TestServer::start().await;
    let proxy = Proxy::start(port(&server.address)).await;
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let client = Client::builder(format!("http://127.0.0.1:{}", proxy.port))
        .address(format!("http://{}", server.address))
        .bearer(jwt)
        .build()
        .unwrap();
    until("the client watches", || client.watch_fault().is_none()).await;
    let (token, other) = (server.token("swallowed").await, server.token("other").await);
    let question = Question::new(&token.secret, &server.stack);
    fill_cache(&client, &question).await;
    proxy.set(Link::BlackHole);
    server.revoke(&token.uid).await;
    let seen = ask_during(&client, &question, 3 * BOUND).await;
    println!("stream in a black hole: {seen:?}");
    assert!(seen.active > 0 && seen.inactive > 0, "{seen:?}");
    let question = Question::new(&other.secret, &server.stack);
    fill_cache(&client, &question).await;
    assert_eq!(client.watch_fault(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_an_outage_and_never_a_verdict() {
    let server = TestServer::start().await;
    let client = client_of(&server).await;
    let token = server.token("a token").await;
    let (secret, stack) = (token.secret.clone(), server.stack.clone());
    let question = Question::new(&secret, &stack);
    fill_cache(&client, &question).await;
    server.stop().await.unwrap();
    let stopped = Instant::now();
    until("the stream ends", || client.watch_fault().is_some()).await;
    while let Ok(answer) = client.introspect(&question).await {
        assert!(answer.active() && answer.from_memory());
        assert!(
            stopped.elapsed() <= BOUND + BOUND / 4,
            "answered from the cache after the lease expired"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = client.introspect(&question).await.unwrap_err();
    assert!(matches!(&refused, Error::Undecided { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_comes_back_is_watched_again_from_where_it_was() {
    let folder = TempDir::new().unwrap();
    let dev = Dev::start(folder.path());
    let proxy = Proxy::start(port(dev.get("grpc_address"))).await;
    let client = Client::builder(format!("http://127.0.0.1:{}", proxy.port))
        .bearer(dev.get("service_jwt"))
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let stack = dev.get("stack_api_key").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    let mut tokens = Vec::new();
    for name in ["first", "second"] {
        let issued = owner.tokens.issue(issue_request(&stack, name)).await;
        tokens.push(Issued::from(issued.unwrap().into_inner()));
    }
    let questions = tokens
        .iter()
        .map(|token| Question::new(&token.secret, &stack));
    let questions: Vec<_> = questions.collect();
    for question in &questions {
        fill_cache(&client, question).await;
    }
    drop(dev);
    let dev = Dev::start(folder.path());
    proxy.point_to(port(dev.get("grpc_address")));
    let mut owner = dev.client("owner_jwt").await;
    let revoke = revoke_request(&stack, &tokens[0].uid, "");
    owner.tokens.revoke(revoke).await.unwrap();
    let seen = ask_during(&client, &questions[0], 2 * BOUND).await;
    println!("killed and back: {seen:?}");
    fill_cache(&client, &questions[1]).await;
    assert!(!client.introspect(&questions[0]).await.unwrap().active());
}

/// A replica that drains ends the stream with a status. The client then asks the other replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_drains_hands_its_clients_over() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let client = client_at(&cluster, &[&cluster.b.address, &cluster.a.address]).await;
    let (dead, live) = (cluster.issue("dead").await, cluster.issue("live").await);
    let stack = cluster.stack.clone();
    let questions = [&dead, &live].map(|token| Question::new(&token.secret, &stack));
    for question in &questions {
        fill_cache(&client, question).await;
    }
    let uid = dead.token.as_ref().unwrap().token_uid.clone();
    cluster.b.drain();
    cluster.revoke(&uid).await.unwrap();
    let seen = ask_during(&client, &questions[0], 2 * BOUND).await;
    println!("drained: {seen:?}");
    assert!(seen.inactive > 0 && seen.undecided == 0, "{seen:?}");
    fill_cache(&client, &questions[1]).await;
}

/// A server process on the PostgreSQL database, which the test can freeze.
struct FreezableReplicas {
    child: ChildGuard,
    address: String,
}

fn serve(postgres: &Postgres, folder: &TempDir) -> FreezableReplicas {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = program();
    command
        .current_dir(folder.path())
        .args([
            "serve",
            "--listen",
            &address,
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .env(
            "STACKTOKEN_DATABASE_URL",
            postgres.url(postgres.port(), "tokens"),
        )
        .env("STACKTOKEN_ISSUERS", "issuers.toml")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    FreezableReplicas {
        child: ChildGuard(command.spawn().unwrap()),
        address,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_frozen_is_passed_over_and_believed_no_longer_than_the_bound() {
    let Some(postgres) = postgres::start() else {
        return;
    };
    postgres.create("tokens");
    let (folder, issuer) = (TempDir::new().unwrap(), TestIssuer::new());
    fs::write(folder.path().join("issuers.toml"), ISSUERS_FILE).unwrap();
    fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    let mut migrate = program();
    migrate
        .current_dir(folder.path())
        .args(["migrate", "up"])
        .env(
            "STACKTOKEN_DATABASE_URL",
            postgres.url(postgres.port(), "tokens"),
        )
        .stdout(Stdio::null());
    assert!(migrate.status().unwrap().success());
    let (a, b) = (serve(&postgres, &folder), serve(&postgres, &folder));
    let now = SystemClock::new().now().seconds();
    let to_a = channel(&a.address).await;
    drop(channel(&b.address).await);
    let as_a = |jwt: String| support::Client::new(to_a.clone(), Some(format!("Bearer {jwt}")));
    let mut operator = as_a(issuer.operator("operator", now));
    let mut owner = as_a(issuer.user("owner", now));
    let request = admin::RegisterRequest {
        validate_only: false,
        name: "Frozen".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let stack = support::clients::register_once_served(&mut operator, request).await;
    let mut conclusive = 0;
    for round in 0..8 {
        // The client first connects to the replica that is about to be frozen.
        let client = Client::builder(format!("http://{}", b.address))
            .address(format!("http://{}", a.address))
            .bearer(issuer.service("content-api", now))
            .build()
            .unwrap();
        let name = format!("round {round}");
        let issued = owner.tokens.issue(issue_request(&stack, &name)).await;
        let token = Issued::from(issued.unwrap().into_inner());
        let question = Question::new(&token.secret, &stack);
        fill_cache(&client, &question).await;
        signal_to(&b.child.0, Signal::STOP);
        let revoke = revoke_request(&stack, &token.uid, "");
        owner.tokens.revoke(revoke).await.unwrap();
        let seen = ask_during(&client, &question, 2 * BOUND).await;
        println!("frozen: {seen:?}");
        assert!(seen.inactive > 0, "{seen:?}");
        signal_to(&b.child.0, Signal::CONT);
        // Data that was sent to the frozen process arrives only now. The client must not take it as
        // fresh.
        ask_during(&client, &question, BOUND / 2).await;
        assert!(!client.introspect(&question).await.unwrap().active());
        // On a busy machine, the revoke can take longer than the client's lease.
        conclusive += usize::from(seen.active > 0);
        if conclusive == 3 {
            return;
        }
    }
    panic!("{conclusive} of 8 rounds began before the client's lease had expired");
}
