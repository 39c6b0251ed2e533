//! Three replicas of the real program, each with another route to the database.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use sea_orm::sqlx::{self, Connection as _, PgConnection};
use stacktoken::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::admin::v1 as admin,
};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::{
    process::{Folder, Program, free_port},
    routing::Routing,
    support::{Client, TestIssuer, issuer::ISSUERS_FILE, person},
};

pub struct Service {
    pub replicas: Vec<Replica>,
    pub stack: String,
}

pub struct Replica {
    pub name: &'static str,
    /// Whether the replica's route to the database follows the primary.
    pub follows: bool,
    pub owner: Client,
    pub service: Client,
    program: Program,
}

fn program() -> Command {
    let own = env!("CARGO_BIN_EXE_stacktoken").to_owned();
    Command::new(std::env::var("STACKTOKEN_TEST_PROGRAM").unwrap_or(own))
}

pub fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Opens a new connection, or gives up after a second.
pub async fn connect(port: u16, database: &str) -> Option<PgConnection> {
    let url = format!("{}?sslmode=disable", url(port, database));
    let connecting = timeout(Duration::from_secs(1), async {
        PgConnection::connect(&url).await
    });
    connecting.await.ok()?.ok()
}

impl Service {
    pub async fn start(folder: &Folder, routing: &Routing) -> Self {
        let mut admin = wait(routing.primary, "postgres").await;
        sqlx::query("CREATE DATABASE tokens")
            .execute(&mut admin)
            .await
            .unwrap();
        let issuer = TestIssuer::new();
        folder.write("issuers.toml", ISSUERS_FILE);
        folder.write("jwks.json", &issuer.jwks());
        let ways = [
            ("A, HAProxy", true, routing.primary),
            ("B, PgBouncer and HAProxy", true, routing.pooled),
            ("C, a pooler that stays", false, routing.pooled_and_stuck),
        ];
        let mut migrate = program();
        migrate.args(["migrate", "up"]);
        settings(&mut migrate, routing.primary, routing.primary);
        let migrated = migrate.current_dir(folder.path()).output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        let mut replicas = Vec::new();
        for (name, follows, port) in ways {
            let program = serve(folder, name, (port, routing.primary));
            replicas.push(Replica::new(name, follows, program, &issuer).await);
        }
        let operator = Client::new(
            replicas[0].2.clone(),
            Some(format!("Bearer {}", issuer.operator("operator", now()))),
        );
        let stack = register(&operator).await;
        let replicas = replicas.into_iter().map(|(replica, ..)| replica).collect();
        Self { replicas, stack }
    }
}

fn now() -> i64 {
    SystemClock::new().now().seconds()
}

/// Waits until HAProxy has checked every node once. Before that, HAProxy takes every node for a
/// primary and distributes connections over all of them.
async fn wait(port: u16, database: &str) -> PgConnection {
    let until = Instant::now() + Duration::from_secs(20);
    let mut primaries = 0;
    loop {
        if let Some(mut connection) = connect(port, database).await {
            let asked = sqlx::query_scalar("SELECT NOT pg_is_in_recovery()");
            let primary: bool = asked.fetch_one(&mut connection).await.unwrap_or(false);
            primaries = if primary { primaries + 1 } else { 0 };
            if primaries == 6 {
                return connection;
            }
        }
        assert!(Instant::now() < until, "no primary");
        sleep(Duration::from_millis(100)).await;
    }
}

fn settings(command: &mut Command, port: u16, direct: u16) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACKTOKEN_")) {
        command.env_remove(name);
    }
    command
        .env("STACKTOKEN_DATABASE_URL", url(port, "tokens"))
        .env("STACKTOKEN_DATABASE_DIRECT_URL", url(direct, "tokens"))
        .env("STACKTOKEN_ISSUERS", "issuers.toml")
        .env("STACKTOKEN_CHANGES_PER_SECOND", "1000000")
        .env("STACKTOKEN_CHANGES_BURST", "1000000")
        // A connection that is closed at its maximum age would cancel calls that are just being
        // sent.
        .env("STACKTOKEN_MAX_CONNECTION_AGE", "1d");
}

/// Starts a replica. Returns the program and its address.
fn serve(folder: &Folder, name: &str, (port, direct): (u16, u16)) -> (Program, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = program();
    command.args([
        "serve",
        "--listen",
        &address,
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    settings(&mut command, port, direct);
    let log = format!("replica {}", &name[..1]);
    (Program::spawn(folder, &log, command), address)
}

impl Replica {
    async fn new(
        name: &'static str,
        follows: bool,
        (program, address): (Program, String),
        issuer: &TestIssuer,
    ) -> (Self, (), Channel) {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let client = |jwt: String| Client::new(channel.clone(), Some(format!("Bearer {jwt}")));
        let replica = Self {
            name,
            follows,
            owner: client(issuer.user("owner", now())),
            service: client(issuer.service("content-api", now())),
            program,
        };
        (replica, (), channel)
    }
}

async fn register(operator: &Client) -> String {
    let request = admin::RegisterRequest {
        name: "Failover".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        token_limit: Some(1000),
        ..Default::default()
    };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match operator.stacks.clone().register(request.clone()).await {
            Ok(registered) => return registered.into_inner().stack.unwrap().stack_api_key,
            Err(status) => assert!(Instant::now() < until, "{status:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}
