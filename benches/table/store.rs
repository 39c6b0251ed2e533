//! The rows that need the store: misses and `Issue`, each with 32 callers. They are compared with
//! the same work on the database alone, by pgbench (`-M prepared`) on PostgreSQL and by single-row
//! commits on SQLite. `Exchange` is compared with `Issue` on the same server.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::Engine as _;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database};
use serde_json::Value;
use stacktoken::{
    domain::{entropy::OsEntropy, secret::Secret},
    grpc::pb::{
        admin::v1::{self as admin, stack_service_client::StackServiceClient},
        v1::{
            self, exchange_service_client::ExchangeServiceClient,
            introspection_service_client::IntrospectionServiceClient,
            token_service_client::TokenServiceClient,
        },
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    exchange::{self, ONCE, REUSABLE, Workloads},
    postgres::{self, Postgres},
    size,
    support::{Server, actions, settings_of_bench},
};

const CALLERS: usize = 32;
const CONNECTIONS: usize = 8;
const MEASURED: Duration = Duration::from_secs(5);
const DATABASE: &str = "bench";
/// The number of stacks on PostgreSQL, and the number of tokens with a known secret. Each call of
/// `Issue` uses the next stack, so that no stack reaches its token limit.
const ROWS: usize = 20_000;
/// The number of stacks on SQLite, where they are registered one by one.
const STACKS: usize = 500;
/// How many JWTs that are valid for one exchange are signed before each measurement.
const JWTS: usize = 60_000;

/// A row, and the measurement with which it is compared.
#[derive(Clone, Copy)]
pub enum Pair {
    MissOnPostgres,
    IssueOnPostgres,
    IssueOnSqlite,
    ExchangeOnPostgres,
    ExchangeOnceOnPostgres,
    ExchangeOnSqlite,
}

impl Pair {
    pub const ALL: [Self; 6] = [
        Self::MissOnPostgres,
        Self::IssueOnPostgres,
        Self::IssueOnSqlite,
        Self::ExchangeOnPostgres,
        Self::ExchangeOnceOnPostgres,
        Self::ExchangeOnSqlite,
    ];

    /// Returns the minimum of the ratio.
    pub const fn wanted(self) -> f64 {
        match self {
            Self::MissOnPostgres | Self::IssueOnPostgres | Self::IssueOnSqlite => 0.60,
            Self::ExchangeOnPostgres | Self::ExchangeOnceOnPostgres | Self::ExchangeOnSqlite => {
                0.50
            }
        }
    }

    pub const fn names(self) -> [&'static str; 2] {
        match self {
            Self::MissOnPostgres => ["miss on PostgreSQL, 32 callers", "pgbench -S -M prepared"],
            Self::IssueOnPostgres => ["Issue on PostgreSQL, 32 callers", "pgbench, 5 statements"],
            Self::IssueOnSqlite => ["Issue on SQLite, 32 callers", "raw single-row commits"],
            Self::ExchangeOnPostgres => ["Exchange on PostgreSQL, 32 callers", "Issue"],
            Self::ExchangeOnceOnPostgres => [
                "Exchange of single-use JWTs on PostgreSQL, 32 callers",
                "Issue",
            ],
            Self::ExchangeOnSqlite => ["Exchange on SQLite, 32 callers", "Issue"],
        }
    }
}

/// The servers and databases that the rows call.
pub struct StoreTable {
    /// Signs the credentials, and is also the server on SQLite.
    dev: Server,
    on_sqlite: Caller,
    stacks: Vec<String>,
    /// A federated token of each stack.
    federated: Vec<String>,
    postgres: Option<OnPostgres>,
    issued: AtomicU64,
}

struct OnPostgres {
    postgres: Postgres,
    look_up: String,
    secrets: Vec<String>,
    caller: Caller,
    _serve: Serve,
}

/// A process of `serve`. Dropping it kills the process.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections to one server, and the credentials for it.
#[derive(Clone)]
struct Caller {
    channels: Vec<Channel>,
    owner_jwt: String,
    service_jwt: String,
    workload_jwt: String,
}

impl Caller {
    async fn new(dev: &Server, address: &str) -> Self {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            channels.push(endpoint.connect().await.unwrap());
        }
        Self {
            channels,
            owner_jwt: dev.get("owner_jwt").to_owned(),
            service_jwt: dev.get("service_jwt").to_owned(),
            workload_jwt: dev.get("workload_jwt").to_owned(),
        }
    }

    /// Returns the number of calls per second. Each call gets a unique number, and must succeed.
    async fn rate<F: Future<Output = ()> + Send + 'static>(
        &self,
        numbers: &AtomicU64,
        call: impl Fn(Channel, u64) -> F + Clone + Send + 'static,
    ) -> f64 {
        let during = size::time(MEASURED);
        let first = numbers.fetch_add(1 << 32, Ordering::Relaxed);
        let next = Arc::new(AtomicU64::new(first));
        let began = Instant::now();
        let callers = (0..CALLERS).map(|at| {
            let channel = self.channels[at % CONNECTIONS].clone();
            let (call, next) = (call.clone(), next.clone());
            tokio::spawn(async move {
                while began.elapsed() < during {
                    call(channel.clone(), next.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        let calls = next.load(Ordering::Relaxed) - first;
        calls as f64 / began.elapsed().as_secs_f64()
    }

    async fn issue_rate(&self, numbers: &AtomicU64, stack_of: StackOf) -> f64 {
        let jwt = self.owner_jwt.clone();
        let call = move |channel, number: u64| {
            let request = issue_request(&stack_of(number), &format!("token {number}"));
            let request = authorized(request, &jwt);
            async move {
                TokenServiceClient::new(channel)
                    .issue(request)
                    .await
                    .unwrap();
            }
        };
        self.rate(numbers, call).await
    }

    /// Exchanges the JWT of a workload that can be exchanged again.
    async fn exchange_rate(&self, token_of: TokenOf) -> f64 {
        let jwt = self.workload_jwt.clone();
        self.exchange_rate_of(token_of, Arc::new(move |_| jwt.clone()))
            .await
    }

    /// Exchanges each of these JWTs once.
    async fn exchange_once_rate(&self, token_of: TokenOf, jwts: Vec<String>) -> f64 {
        let jwt = move |number: u64| {
            let jwt = jwts.get(number as usize);
            jwt.expect("more JWTs must be signed").clone()
        };
        self.exchange_rate_of(token_of, Arc::new(jwt)).await
    }

    async fn exchange_rate_of(
        &self,
        token_of: TokenOf,
        jwt_of: Arc<dyn Fn(u64) -> String + Send + Sync>,
    ) -> f64 {
        let call = move |channel, number: u64| {
            let (stack, token) = token_of(number);
            let request = authorized(exchange::request(stack, token), &jwt_of(number));
            async move {
                ExchangeServiceClient::new(channel)
                    .exchange(request)
                    .await
                    .unwrap();
            }
        };
        self.rate(&AtomicU64::new(0), call).await
    }
}

type StackOf = Arc<dyn Fn(u64) -> String + Send + Sync>;
/// The key of a stack, and the id of its federated token.
type TokenOf = Arc<dyn Fn(u64) -> (String, String) + Send + Sync>;

fn authorized<M>(message: M, jwt: &str) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    let credential = format!("Bearer {jwt}").parse().unwrap();
    request.metadata_mut().insert("authorization", credential);
    request
}

fn issue_request(stack: &str, name: &str) -> v1::IssueRequest {
    v1::IssueRequest {
        stack_api_key: stack.to_owned(),
        name: name.to_owned(),
        permissions: Some(v1::Permissions {
            access: v1::Access::ReadWrite.into(),
            ..Default::default()
        }),
        expiry: Some(v1::Expiry {
            expiry: Some(v1::expiry::Expiry::Never(true)),
        }),
        ..Default::default()
    }
}

/// Returns the key of a stack on PostgreSQL.
fn key(number: u64) -> String {
    format!("blt{:016x}", number % size::count(ROWS) as u64 + 1)
}

impl StoreTable {
    pub async fn new() -> Self {
        let settings = [
            ("STACKTOKEN_UNRECOGNIZED_PER_SECOND", "1000000000"),
            MANY_SESSIONS[0],
            MANY_SESSIONS[1],
        ];
        let dev = Server::start(&settings);
        let on_sqlite = Caller::new(&dev, dev.get("grpc_address")).await;
        let stacks = register(&dev).await;
        let federated = federate(&dev, &stacks).await;
        let postgres = match postgres::start() {
            Some(postgres) => Some(OnPostgres::new(&dev, postgres).await),
            None => None,
        };
        Self {
            dev,
            on_sqlite,
            stacks,
            federated,
            postgres,
            issued: AtomicU64::new(0),
        }
    }

    /// Returns the calls per second of a row, and the rate with which it is compared. Returns
    /// `None` if PostgreSQL is not installed.
    pub async fn measure(&self, pair: Pair) -> Option<[f64; 2]> {
        let of_sqlite = || {
            let stacks = self.stacks.clone();
            move |number: u64| stacks[number as usize % stacks.len()].clone()
        };
        let issue_on_sqlite = || {
            let stack_of = Arc::new(of_sqlite());
            self.on_sqlite.issue_rate(&self.issued, stack_of)
        };
        Some(match (pair, &self.postgres) {
            (Pair::IssueOnSqlite, _) => [issue_on_sqlite().await, raw_commits(&self.dev).await],
            (Pair::ExchangeOnSqlite, _) => [
                self.on_sqlite.exchange_rate(self.tokens()).await,
                issue_on_sqlite().await,
            ],
            (_, None) => return None,
            (Pair::MissOnPostgres, Some(on)) => [on.miss_rate().await, on.pgbench(&on.look_up)],
            (Pair::IssueOnPostgres, Some(on)) => [
                on.caller.issue_rate(&self.issued, Arc::new(key)).await,
                on.pgbench(ISSUE),
            ],
            (Pair::ExchangeOnPostgres, Some(on)) => [
                on.caller.exchange_rate(tokens_on_postgres(FEDERATED)).await,
                on.caller.issue_rate(&self.issued, Arc::new(key)).await,
            ],
            (Pair::ExchangeOnceOnPostgres, Some(on)) => {
                let jwts = exchange::sign(&self.dev, size::count(JWTS));
                let tokens = tokens_on_postgres(FEDERATED_ONCE);
                [
                    on.caller.exchange_once_rate(tokens, jwts).await,
                    on.caller.issue_rate(&self.issued, Arc::new(key)).await,
                ]
            }
        })
    }

    /// The federated tokens on SQLite.
    fn tokens(&self) -> TokenOf {
        let (stacks, tokens) = (self.stacks.clone(), self.federated.clone());
        Arc::new(move |number| {
            let at = number as usize % stacks.len();
            (stacks[at].clone(), tokens[at].clone())
        })
    }
}

/// One workload makes all exchanges, so it has more sessions than the defaults permit.
const MANY_SESSIONS: [(&str, &str); 2] = [
    ("STACKTOKEN_MAX_SESSIONS_PER_TOKEN", "1000000"),
    ("STACKTOKEN_MAX_SESSIONS_PER_SUBJECT", "1000000"),
];

/// What the number of a stack on PostgreSQL is increased by for the number of each of its tokens:
/// the one with a known secret has the number of the stack.
const NUMBERED: u64 = 1_000_000;
const FEDERATED: u64 = 2_000_000;
const FEDERATED_ONCE: u64 = 3_000_000;

/// The federated tokens on PostgreSQL.
fn tokens_on_postgres(kind: u64) -> TokenOf {
    Arc::new(move |number| {
        let stack = number % size::count(ROWS) as u64 + 1;
        let token = uuid::Uuid::from_u128(u128::from(stack + kind));
        (key(number), token.to_string())
    })
}

/// Issues a federated token in each stack.
async fn federate(dev: &Server, stacks: &[String]) -> Vec<String> {
    let mut tokens = TokenServiceClient::new(dev.channel().await);
    let mut uids = Vec::new();
    for stack in stacks {
        let request = v1::IssueRequest {
            federation: Some(REUSABLE.federation()),
            ..issue_request(stack, "federated")
        };
        let issued = tokens.issue(dev.request("owner_jwt", request)).await;
        uids.push(issued.unwrap().into_inner().token.unwrap().token_uid);
    }
    uids
}

/// Registers stacks whose owner is the `dev` server's owner. Returns their keys.
async fn register(dev: &Server) -> Vec<String> {
    let claims = claims(dev.get("owner_jwt"));
    let text = |name: &str| claims[name].as_str().unwrap().to_owned();
    let mut stacks = StackServiceClient::new(dev.channel().await);
    let mut keys = Vec::new();
    for at in 0..size::count(STACKS) {
        let request = admin::RegisterRequest {
            name: format!("Stack {at}"),
            organization_uid: "bench".into(),
            owner: Some(admin::Person {
                issuer: text("iss"),
                subject: text("sub"),
                ..Default::default()
            }),
            token_limit: Some(1000),
            ..Default::default()
        };
        let made = stacks.register(dev.request("operator_jwt", request)).await;
        keys.push(made.unwrap().into_inner().stack.unwrap().stack_api_key);
    }
    keys
}

fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    let payload = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload);
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

/// Commits single rows one after the other, each with a sync of the disk, to a file next to the
/// server's database. Returns the commits per second.
async fn raw_commits(dev: &Server) -> f64 {
    let path = dev.database().with_file_name("raw.db");
    let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rwc", path.display()));
    options.max_connections(1).sqlx_logging(false);
    let database = Database::connect(options).await.unwrap();
    let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
        CREATE TABLE IF NOT EXISTS raw (id INTEGER PRIMARY KEY, text TEXT)";
    database.execute_unprepared(setup).await.unwrap();
    let (began, during, mut commits) = (Instant::now(), size::time(MEASURED), 0_u32);
    while began.elapsed() < during {
        let insert = "INSERT INTO raw (text) VALUES ('a row of a few bytes')";
        database.execute_unprepared(insert).await.unwrap();
        commits += 1;
    }
    f64::from(commits) / began.elapsed().as_secs_f64()
}

/// Issues a token with the fewest statements that still keep the guarantees: one that locks the
/// stack, one that reads everything needed under the lock, and one that writes all rows.
const ISSUE: &str = "\
\\set n random(1, :rows)
\\set u random(1, 9000000000000000)
BEGIN;
SELECT uid, token_limit, suspended_at, removed_at, last_changed_at FROM stacks \
WHERE key = 'blt' || lpad(to_hex(:n::bigint), 16, '0') FOR NO KEY UPDATE;
SELECT (SELECT role FROM stack_members WHERE stack_uid = lpad(to_hex(:n::bigint), 32, '0')::uuid \
AND issuer = 'https://login.test' AND subject = 'owner') AS role, clock_timestamp(), \
count(*) FILTER (WHERE expires_at IS NULL OR expires_at > 0) AS live, \
count(*) FILTER (WHERE name = 'p' || :u) AS holders FROM tokens \
WHERE stack_uid = lpad(to_hex(:n::bigint), 32, '0')::uuid AND revoked_at IS NULL AND ended_at IS NULL;
WITH token AS (INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, revoke_reason) \
VALUES (gen_random_uuid(), lpad(to_hex(:n::bigint), 32, '0')::uuid, 'p' || :u, '', \
'{\"access\":\"READ_WRITE\"}', 1, 'abcd', 0, 'USER', 'i', 's', '') RETURNING uid), \
secret AS (INSERT INTO token_secrets (digest, token_uid, generation, made_at) \
SELECT sha256(('p' || :u)::bytea), uid, 1, 0 FROM token), \
audit AS (INSERT INTO audit_events (uid, occurred_at, actor_kind, actor_issuer, actor_subject, \
action, count, request_id, details) VALUES (gen_random_uuid(), 0, 'USER', 'i', 's', \
'token_issue', 1, 'r', '{}')), \
moved AS (UPDATE stacks SET last_changed_at = 0 WHERE uid = lpad(to_hex(:n::bigint), 32, '0')::uuid) \
INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
SELECT lpad(to_hex(:n::bigint), 32, '0')::uuid, uid, 'issued', 0 FROM token RETURNING xid;
COMMIT;
";

impl OnPostgres {
    async fn new(dev: &Server, postgres: Postgres) -> Self {
        postgres.run("postgres", &format!("CREATE DATABASE {DATABASE}"));
        let port = postgres.port();
        let url = format!("postgres://postgres@127.0.0.1:{port}/{DATABASE}?sslmode=disable");
        let issuers = exchange::write_issuers(dev);
        let stacktoken = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stacktoken"));
            settings_of_bench(&mut command);
            command.env("STACKTOKEN_DATABASE_URL", &url);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let migrated = stacktoken().args(["migrate", "up"]).status().unwrap();
        assert!(migrated.success(), "migrate up failed");
        let secrets = fill(&postgres, &claims(dev.get("owner_jwt")));
        let [grpc, admin] = [free_address(), free_address()];
        let serve = stacktoken()
            .args(["serve", "--listen", &grpc, "--admin-listen", &admin])
            .arg("--issuers")
            .arg(issuers)
            // With a cache of one entry, practically no call is answered from the cache.
            .env("STACKTOKEN_CACHE_ENTRIES", "1")
            .envs(MANY_SESSIONS)
            .spawn()
            .unwrap();
        let serve = Serve(serve);
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&grpc).is_err() {
            assert!(Instant::now() < until, "the server did not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let caller = Caller::new(dev, &grpc).await;
        let mut on = Self {
            postgres,
            look_up: String::new(),
            secrets,
            caller,
            _serve: serve,
        };
        on.look_up = on.find_look_up().await;
        on
    }

    /// Returns the statement that the server runs for a miss, as a script for pgbench. Its digests
    /// are those of the numbered tokens, see [`fill`].
    async fn find_look_up(&self) -> String {
        let log = |on| {
            let set = format!("ALTER SYSTEM SET log_statement = '{on}'");
            self.postgres.run("postgres", &set);
            self.postgres.run("postgres", "SELECT pg_reload_conf()");
        };
        let ask = |at: usize| {
            let channel = self.caller.channels[0].clone();
            introspect(
                channel,
                &self.caller.service_jwt,
                at as u64,
                self.secrets[at].clone(),
            )
        };
        let until = Instant::now() + Duration::from_secs(30);
        log("all");
        let found = loop {
            let _ = ask(0).await;
            let _ = ask(1).await;
            let text = self.postgres.log();
            let is_look_up =
                |line: &&str| line.contains("s.session_ended_at") && line.contains("digest = $1");
            let line = text.lines().find(is_look_up);
            if let Some(line) = line {
                break line.split_once(": SELECT ").unwrap().1.to_owned();
            }
            assert!(Instant::now() < until, "no statement of a miss in the log");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        log("none");
        let by_number = "decode(lpad(to_hex(:n::bigint), 64, '0'), 'hex')";
        let select = format!("SELECT {}", found.replace("$1", by_number));
        format!("\\set n random(1, :rows)\n{select};\n")
    }

    async fn miss_rate(&self) -> f64 {
        let secrets = Arc::new(self.secrets.clone());
        let jwt = self.caller.service_jwt.clone();
        let call = move |channel, number: u64| {
            // Consecutive numbers map to distant tokens, so that no two callers ask about the same
            // token.
            let secret = secrets[number.wrapping_mul(7919) as usize % secrets.len()].clone();
            let at = number.wrapping_mul(7919) % secrets.len() as u64;
            let answer = introspect(channel, &jwt, at, secret);
            async move { assert!(answer.await.unwrap().active) }
        };
        self.caller.rate(&AtomicU64::new(0), call).await
    }

    /// Returns the transactions per second with which pgbench runs a script.
    fn pgbench(&self, script: &str) -> f64 {
        let file = self.postgres.folder().join("script");
        fs::write(&file, script).unwrap();
        let seconds = size::time(MEASURED).as_secs().to_string();
        let output = Command::new(pgbench())
            .args(["-h", "127.0.0.1", "-p", &self.postgres.port().to_string()])
            .args(["-U", "postgres", "-n", "-M", "prepared", "-j", "2"])
            .args(["-c", &CALLERS.to_string(), "-T", &seconds])
            .args(["-D", &format!("rows={}", size::count(ROWS))])
            .arg("-f")
            .arg(&file)
            .arg(DATABASE)
            .output()
            .expect("pgbench is not installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let errors = String::from_utf8_lossy(&output.stderr);
        let tps = tps.unwrap_or_else(|| panic!("{errors}"));
        tps.split(' ').next().unwrap().parse().unwrap()
    }
}

fn introspect(
    channel: Channel,
    jwt: &str,
    at: u64,
    secret: String,
) -> impl Future<Output = Result<v1::IntrospectResponse, tonic::Status>> + Send + 'static + use<> {
    let question = v1::IntrospectRequest {
        token: secret,
        stack_api_key: key(at),
        actions: actions(),
        ..Default::default()
    };
    let request = authorized(question, jwt);
    async move {
        let mut client = IntrospectionServiceClient::new(channel);
        Ok(client.introspect(request).await?.into_inner())
    }
}

fn pgbench() -> PathBuf {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found = packaged
        .flatten()
        .map(|version| version.path().join("bin/pgbench"));
    found
        .find(|path| path.exists())
        .unwrap_or_else(|| "pgbench".into())
}

fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// Inserts stacks of the owner. Each has two tokens that were already used: one with a known
/// secret, and one whose digest is the number of the stack. Returns the known secrets.
fn fill(postgres: &Postgres, owner: &Value) -> Vec<String> {
    let rows = size::count(ROWS);
    let text = |name: &str| owner[name].as_str().unwrap().replace('\'', "''");
    let (issuer, subject) = (text("iss"), text("sub"));
    let uid = |of: &str| format!("lpad(to_hex({of}), 32, '0')::uuid");
    let (its, known, numbered) = (uid("n"), uid("n"), uid(&format!("n + {NUMBERED}")));
    let row = |uid: &str, name: &str, (generation, federation): (u32, &str)| {
        format!(
            "INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
             secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, \
             revoke_reason, federation) SELECT {uid}, {its}, '{name}', '', \
             '{{\"access\":\"READ_WRITE\"}}', {generation}, 'abcd', 0, 'USER', 'i', 's', '', \
             {federation} FROM generate_series(1, {rows}) n"
        )
    };
    let token = |uid: &str, name: &str| row(uid, name, (1, "NULL"));
    let federated = |kind: u64, trusts: Workloads| {
        let federation = format!("'{}'", trusts.stored());
        row(
            &uid(&format!("n + {kind}")),
            trusts.issuer,
            (0, &federation),
        )
    };
    let statements = [
        format!(
            "INSERT INTO stacks (uid, key, name, organization_uid, token_limit, registered_at) \
             SELECT {its}, 'blt' || lpad(to_hex(n), 16, '0'), 'Filled', 'o', 1000, 0 \
             FROM generate_series(1, {rows}) n"
        ),
        format!(
            "INSERT INTO stack_members (stack_uid, issuer, subject, role, added_at) \
             SELECT {its}, '{issuer}', '{subject}', 'OWNER', 0 FROM generate_series(1, {rows}) n"
        ),
        token(&known, "known"),
        token(&numbered, "numbered"),
        federated(FEDERATED, REUSABLE),
        federated(FEDERATED_ONCE, ONCE),
        format!(
            "INSERT INTO token_secrets (digest, token_uid, generation, made_at, first_used_at) \
             SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), {numbered}, 1, 0, 0 \
             FROM generate_series(1, {rows}) n"
        ),
    ];
    for statement in statements {
        postgres.run(DATABASE, &statement);
    }
    let secrets: Vec<_> = (0..rows)
        .map(|_| Secret::generate(&OsEntropy).unwrap())
        .collect();
    for (at, some) in secrets.chunks(500).enumerate() {
        let digests: Vec<String> = some
            .iter()
            .map(|secret| {
                let hex = secret.digest().as_bytes().map(|byte| format!("{byte:02x}"));
                format!("'{}'", hex.concat())
            })
            .collect();
        let statement = format!(
            "INSERT INTO token_secrets (digest, token_uid, generation, made_at, first_used_at) \
             SELECT decode(d, 'hex'), {}, 1, 0, 0 \
             FROM unnest(ARRAY[{}]) WITH ORDINALITY AS a (d, n)",
            uid(&format!("n + {}", at * 500)),
            digests.join(", ")
        );
        postgres.run(DATABASE, &statement);
    }
    // Updates the statistics, as in a database in use. The plans do not depend on them.
    postgres.run(DATABASE, "VACUUM ANALYZE");
    secrets
        .iter()
        .map(|secret| secret.expose().to_owned())
        .collect()
}
