//! Measures the overhead of tracking token usage. Compares cached Introspect calls over 10,000
//! distinct tokens with and without tracking, alternately on one store in one process. Run it with
//! `cargo bench --bench usage`. The load generator and the servers share the CPU cores, so only the
//! ratio is meaningful.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark may panic"
)]
#![recursion_limit = "256"]

#[allow(dead_code, reason = "each benchmark uses a part of it")]
#[path = "support/size.rs"]
mod size;
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::{
    app::{self, App, Bounds, Issue, Question, Rate, Register, Safeguards},
    auth::{self, Authenticator, HttpFetcher},
    config::RetentionSettings,
    config::Tuning,
    domain::{
        caller::{Actor, Call, Caller, CallerKind, Mode, Requirement},
        catalogue::Catalogue,
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
        federation::session::SessionLimits,
        field::Violations,
        labels::Labels,
        permissions::{Draft, Permissions},
        routes::RouteTable,
        secret::Secret,
        stack::{Person, StackKey},
        text::{Description, Issuer, StackName, Subject, TokenName},
        token::Expiry,
    },
    metrics::Metrics,
    server::{self, Listeners, ServerParts},
    store::{Location, NewSecret, PoolSize, Store},
};
use support::{Client, ISSUER, TestIssuer, introspect_request, issuer, tuning};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use zeroize::Zeroizing;

const CONNECTIONS: usize = 8;
const STREAMS: usize = 32;
const STACKS: usize = 10;
const TOKENS: usize = 10_000;
const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
/// The number of slices in a round. Slices with and without tracking alternate, so that other work
/// on the machine affects both equally. A round of 31 slices is longer than the interval between
/// two usage writes.
const SLICES: u32 = 31;
const MEASURED: Duration = Duration::from_secs(1);
/// The required ratio of throughput, with tracking to without tracking.
const WANTED: f64 = 0.95;

type Environment = (Arc<dyn Clock>, Arc<dyn Entropy>);

fn environment() -> Environment {
    (Arc::new(SystemClock::new()), Arc::new(OsEntropy))
}

fn call(kind: CallerKind, subject: &str, clock: &dyn Clock) -> Call {
    Call {
        mode: Mode::Apply,
        caller: Arc::new(Caller {
            actor: Actor {
                kind,
                issuer: ISSUER.into(),
                subject: subject.into(),
            },
            introspects: kind == CallerKind::Service,
            stranger_in: None,
            workload: None,
        }),
        requirement: Requirement {
            stack_admin: true,
            user: true,
            operator: true,
            introspector: true,
            service: false,
            anyone: false,
            workload: false,
            holder: false,
        },
        received_at: clock.now(),
        request_id: "measured".into(),
    }
}

/// The stack API key and the secret of a token.
type StackAndSecret = (String, String);

/// Registers the stacks and issues their tokens.
async fn fill(store: &Store, clock: &dyn Clock) -> Vec<StackAndSecret> {
    let draft: Draft = serde_json::from_str(r#"{"access":"READ_WRITE"}"#).unwrap();
    let permissions = Permissions::try_from(draft).unwrap();
    let mut known = Vec::new();
    for stack in 0..STACKS {
        let key = StackKey::parse(&format!("blt{stack:016x}")).unwrap();
        let register = Register {
            stack_key: key.clone(),
            name: StackName::parse("Measured").unwrap(),
            organization_uid: "org-1".into(),
            owner: Person {
                issuer: Issuer::parse(ISSUER).unwrap(),
                subject: Subject::parse("owner").unwrap(),
                email: None,
            },
            token_limit: (size::count(TOKENS) / STACKS).try_into().unwrap(),
            request: None,
        };
        let operator = call(CallerKind::Operator, "operator", clock);
        store.register_stack(&operator, &register).await.unwrap();
        for token in 0..size::count(TOKENS) / STACKS {
            let secret = Secret::generate(&OsEntropy).unwrap();
            let kept = NewSecret {
                digest: secret.digest(),
                hint: secret.hint().to_owned(),
            };
            let issue = Issue {
                stack_key: key.clone(),
                name: TokenName::parse(&format!("token {token}")).unwrap(),
                description: Description::parse("").unwrap(),
                permissions: permissions.clone(),
                labels: Labels::default(),
                expiry: Expiry::Never,
                federation: None,
                request: None,
                overdue: Violations::default(),
            };
            let owner = call(CallerKind::User, "owner", clock);
            store.issue(&owner, &issue, &kept).await.unwrap();
            known.push((key.to_string(), secret.expose().to_owned()));
        }
    }
    known
}

/// A server on the shared store, with clients.
struct BenchServer {
    admin: String,
    clients: Vec<Client>,
    stop: CancellationToken,
}

impl BenchServer {
    async fn start(
        store: &Arc<Store>,
        issuer: &TestIssuer,
        folder: &TempDir,
        set: impl Fn(&mut Tuning),
    ) -> Self {
        let (clock, entropy) = environment();
        std::fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
        let entries = auth::parse(issuer::ISSUERS_FILE, folder.path()).unwrap();
        let fetcher = Arc::new(HttpFetcher::default());
        let authenticator =
            Authenticator::new(entries, fetcher, clock.clone(), auth::DEFAULT_MAX_STALE);
        authenticator.load_files().await.unwrap();
        let mut tuning = tuning();
        tuning.max_connection_age = Duration::from_secs(3600);
        set(&mut tuning);
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let address = listeners.grpc.local_addr().unwrap();
        let admin = listeners.admin.local_addr().unwrap().to_string();
        let now = clock.now().seconds();
        let parts = ServerParts {
            store: store.clone(),
            authenticator: Arc::new(authenticator),
            catalogue: Arc::new(Catalogue::builtin()),
            routes: Arc::new(RouteTable::builtin().unwrap()),
            clock,
            entropy,
            tls: None,
            safeguards: Safeguards::default(),
        };
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let (serving, served) = tokio::sync::oneshot::channel();
        let announce = move || {
            let _ = serving.send(());
        };
        tokio::spawn(
            async move { server::run(parts, &tuning, listeners, announce, stopping).await },
        );
        served.await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let jwt = issuer.service("content-api", now);
            clients.push(Client::new(channel, Some(format!("Bearer {jwt}"))));
        }
        Self {
            admin,
            clients,
            stop,
        }
    }

    /// Uses every token once. Retries calls that fail because too many first uses run at once.
    async fn warm(&self, tokens: &[StackAndSecret]) {
        let shares = tokens.chunks(tokens.len().div_ceil(CONNECTIONS));
        let asked = self
            .clients
            .iter()
            .cloned()
            .zip(shares)
            .map(async |(mut client, share)| {
                for (stack, secret) in share {
                    let question = || introspect_request(stack, secret, &[]);
                    while client.introspection.introspect(question()).await.is_err() {}
                }
            });
        futures_util::future::join_all(asked).await;
    }

    /// Returns the verdicts per second. The streams go through all tokens repeatedly.
    async fn run(&self, tokens: &Arc<Vec<StackAndSecret>>, during: Duration) -> f64 {
        let begun = Instant::now();
        let until = begun + during;
        let streams = (0..CONNECTIONS * STREAMS).map(|stream| {
            let mut client = self.clients[stream % CONNECTIONS].clone();
            let tokens = tokens.clone();
            tokio::spawn(async move {
                let mut verdicts = 0_u64;
                let from = stream * tokens.len() / (CONNECTIONS * STREAMS);
                for (stack, secret) in tokens.iter().cycle().skip(from) {
                    if Instant::now() >= until {
                        break;
                    }
                    let question = introspect_request(stack, secret, &["entry.update"]);
                    let answer = client.introspection.introspect(question).await.unwrap();
                    assert!(answer.into_inner().active);
                    verdicts += 1;
                }
                verdicts
            })
        });
        let streams: Vec<_> = streams.collect();
        let mut verdicts = 0;
        for stream in streams {
            verdicts += stream.await.unwrap();
        }
        verdicts as f64 / begun.elapsed().as_secs_f64()
    }

    async fn metric(&self, name: &str) -> u64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.admin).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap().trim().parse().unwrap()
    }
}

/// The value of retentions and intervals for tasks that this benchmark does not start.
const HOUR: Duration = Duration::from_hours(1);

/// Creates the application layer, without a transport.
fn use_cases(store: &Arc<Store>, usage_pairs: usize) -> App {
    let rate = Rate {
        per_second: 1_000_000.try_into().unwrap(),
        burst: 1_000_000.try_into().unwrap(),
    };
    let tuning = app::UseCaseSettings {
        verdict_max_age: Duration::from_secs(1),
        changes: rate,
        unrecognized: rate,
        bounds: Bounds {
            freshness: Duration::from_secs(1),
            serve_stale_for: Duration::ZERO,
        },
        cache_entries: 100_000,
        watch_queue: 1,
        keeping: RetentionSettings {
            token_retention: HOUR,
            audit_retention: HOUR,
            change_retention: HOUR,
            housekeeping_every: HOUR,
        },
        sessions: SessionLimits {
            of_token: 100,
            of_subject: 10,
        },
        usage_pairs,
        readings: 256,
        safeguards: Safeguards::default(),
    };
    let metrics = Arc::new(Metrics::default());
    let catalogue = Arc::new(Catalogue::builtin());
    App::new(store.clone(), environment(), metrics, &tuning, catalogue).0
}

/// Returns the shortest time per cached verdict of the application layer alone, in nanoseconds.
async fn alone(app: &App, tokens: &[StackAndSecret]) -> f64 {
    let asked: Vec<_> = tokens
        .iter()
        .map(|(stack, secret)| Question {
            token: Zeroizing::new(secret.clone()),
            stack_api_key: stack.clone(),
            actions: Vec::new(),
            min_revision: None,
            include: app::Included::default(),
        })
        .collect();
    let call = call(CallerKind::Service, "content-api", app.clock());
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let begun = Instant::now();
        for question in &asked {
            black_box(app.introspect(&call, question).await.unwrap());
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / asked.len() as f64);
    }
    best
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = TempDir::new().unwrap();
    let location = Location::Sqlite(folder.path().join("measured.db"));
    let (clock, entropy) = environment();
    let store = Store::open(
        &location,
        PoolSize { connections: 4 },
        (clock.clone(), entropy),
    );
    let store = Arc::new(store.await.unwrap());
    store.migrate().await.unwrap();
    store.require_current_schema().await.unwrap();
    let begun = Instant::now();
    let tokens = Arc::new(fill(&store, clock.as_ref()).await);
    println!(
        "{} tokens issued in {:.0} s",
        tokens.len(),
        begun.elapsed().as_secs_f64()
    );
    let issuer = TestIssuer::new();
    let with = BenchServer::start(&store, &issuer, &folder, |_| {}).await;
    let without =
        BenchServer::start(&store, &issuer, &folder, |tuning| tuning.usage_pairs = 0).await;
    // The first use of each token is written to the store, which must not be part of the
    // measurement.
    for served in [&with, &without] {
        served.warm(&tokens).await;
        served.run(&tokens, WARM_UP).await;
    }
    println!(
        "used every token once after {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    println!(
        "{CONNECTIONS} connections x {STREAMS} streams, {} tokens, cached",
        tokens.len()
    );
    let (begun, before) = (
        Instant::now(),
        with.metric("stacktoken_usage_writes_total").await,
    );
    let slices = if size::rounds(ROUNDS) == ROUNDS {
        SLICES
    } else {
        3
    };
    let mut ratios = Vec::new();
    for round in 1..=size::rounds(ROUNDS) {
        let (mut gathered, mut bare) = (0.0, 0.0);
        for _ in 0..slices {
            gathered += with.run(&tokens, MEASURED).await / f64::from(slices);
            bare += without.run(&tokens, MEASURED).await / f64::from(slices);
        }
        let ratio = gathered / bare;
        println!(
            "round {round}: with {gathered:.0} verdicts/s, without {bare:.0}, ratio {ratio:.3}"
        );
        ratios.push(ratio);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let writes = with.metric("stacktoken_usage_writes_total").await - before;
    let rows = with.metric("stacktoken_usage_rows_written_total").await;
    println!("{writes} write transactions in {elapsed:.0} s ({rows} rows since the start)");
    // Usage is written once per minute, and a small round is shorter than that.
    assert!(
        size::is_small() || writes > 0 && rows >= tokens.len() as u64,
        "no usage was written"
    );
    assert_eq!(without.metric("stacktoken_usage_writes_total").await, 0);
    for served in [with, without] {
        served.stop.cancel();
    }
    let (gathering, bare) = (use_cases(&store, 1_000_000), use_cases(&store, 0));
    let (gathered, bare) = (
        alone(&gathering, &tokens).await,
        alone(&bare, &tokens).await,
    );
    println!("the use cases alone: with {gathered:.0} ns per verdict, without {bare:.0} ns");
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("median ratio {median:.3}, required {WANTED:.2}; at most one write per second");
    size::judge(median >= WANTED && writes as f64 <= elapsed)
}
