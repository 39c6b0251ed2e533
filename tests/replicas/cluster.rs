//! Two replicas of one service, each of which has its own proxies to the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stacktoken::{
    app::Safeguards,
    auth::{self, Authenticator, HttpFetcher},
    config::Tuning,
    domain::{
        catalogue::Catalogue,
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
        routes::RouteTable,
        secret::Secret,
        timestamp::Timestamp,
    },
    grpc::pb::{admin, v1},
    server::{self, Listeners, ServeError, ServerParts},
    store::{Location, PoolSize, Store},
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Endpoint};

use crate::{
    postgres::{self, Postgres},
    proxy::{Link, Proxy},
    support::{
        Client, TestIssuer, federated, introspect_request, issue_request, issuer, person, tuning,
    },
};

/// Two replicas that share a database and a stack, and clients for both.
pub struct Cluster {
    pub postgres: Postgres,
    pub a: Replica,
    pub b: Replica,
    pub stack: String,
    pub issuer: TestIssuer,
    folder: TempDir,
}

pub struct Replica {
    pub address: String,
    pub admin_address: String,
    /// The proxy for the connections that serve calls.
    pub link: Proxy,
    /// The proxy for the connections that the poller, the heartbeat and LISTEN use.
    pub control_link: Proxy,
    pub owner: Client,
    pub service: Client,
    pub operator: Client,
    pub clock: Arc<PausableClock>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

pub const DATABASE: &str = "tokens";

/// The host's clocks with two faults: the wall clock can be set ahead, and the monotonic clock can
/// jump, as it does after a pause in which neither the replica nor its timers ran.
pub struct PausableClock {
    host: SystemClock,
    paused_millis: AtomicU64,
    ahead_micros: AtomicI64,
}

impl PausableClock {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            host: SystemClock::new(),
            paused_millis: AtomicU64::new(0),
            ahead_micros: AtomicI64::new(0),
        })
    }

    /// Sets the wall clock this much ahead of the host's.
    pub fn set_ahead(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.ahead_micros.store(micros, Ordering::SeqCst);
    }

    pub fn pause_for(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.paused_millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for PausableClock {
    fn now(&self) -> Timestamp {
        let ahead = self.ahead_micros.load(Ordering::SeqCst);
        Timestamp::from_micros(self.host.now().as_micros() + ahead).unwrap()
    }

    fn monotonic(&self) -> Duration {
        let paused = self.paused_millis.load(Ordering::SeqCst);
        self.host.monotonic() + Duration::from_millis(paused)
    }
}

impl Cluster {
    /// Starts a cluster with the default settings. Returns `None` if PostgreSQL is not installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(|_| {}, Safeguards::default()).await
    }

    /// Starts a cluster with other settings, or with a safeguard switched off.
    pub async fn start_with(set: impl Fn(&mut Tuning), safeguards: Safeguards) -> Option<Self> {
        let postgres = postgres::start()?;
        let ports = (postgres.port(), postgres.port());
        Some(Self::make(postgres, ports, set, safeguards).await)
    }

    /// Starts a cluster that reaches PostgreSQL through these ports. The first one is for calls and
    /// may belong to a pooler, the second one leads directly to PostgreSQL.
    pub async fn start_through(
        postgres: Postgres,
        ports: (u16, u16),
        set: impl Fn(&mut Tuning),
    ) -> Self {
        Self::make(postgres, ports, set, Safeguards::default()).await
    }

    async fn make(
        postgres: Postgres,
        ports: (u16, u16),
        set: impl Fn(&mut Tuning),
        safeguards: Safeguards,
    ) -> Self {
        // If a test fails, its output also shows the errors that the service has logged.
        let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR);
        let _ = errors.with_test_writer().try_init();
        postgres.create(DATABASE);
        let folder = TempDir::new().unwrap();
        let issuer = TestIssuer::new();
        std::fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
        let mut tuning = tuning();
        set(&mut tuning);
        let a = Replica::start(&postgres, ports, (&folder, &issuer), (&tuning, safeguards)).await;
        let b = Replica::start(&postgres, ports, (&folder, &issuer), (&tuning, safeguards)).await;
        let stack = register(&a.operator).await;
        Self {
            postgres,
            a,
            b,
            stack,
            issuer,
            folder,
        }
    }

    /// Registers another stack that has the same owner.
    pub async fn register(&self) -> String {
        register(&self.a.operator).await
    }

    pub async fn issue(&self, name: &str) -> v1::IssueResponse {
        let request = issue_request(&self.stack, name);
        self.a
            .owner
            .tokens
            .clone()
            .issue(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn revoke(&self, uid: &str) -> Result<v1::RevokeResponse, Status> {
        let request = v1::RevokeRequest {
            stack_api_key: self.stack.clone(),
            token_uid: uid.into(),
            reason: String::new(),
            validate_only: false,
            etag: String::new(),
        };
        self.a
            .owner
            .tokens
            .clone()
            .revoke(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Starts another replica on another server, but does not wait until it is ready.
    pub async fn begin_on(&self, postgres: &Postgres) -> Replica {
        let ports = (postgres.port(), postgres.port());
        let settings = (&tuning(), Safeguards::default());
        let signed_by = (&self.folder, &self.issuer);
        Replica::begin(postgres, ports, signed_by, settings).await.0
    }

    /// Sets the token limit of the stack.
    pub async fn allow_tokens(&self, max: i32) {
        let request = admin::v1::SetTokenLimitRequest {
            stack_api_key: self.stack.clone(),
            max_tokens: Some(max),
            reason: "a test needs many".into(),
            validate_only: false,
        };
        self.a
            .operator
            .stacks
            .clone()
            .set_token_limit(request)
            .await
            .unwrap();
    }
}

async fn register(operator: &Client) -> String {
    let request = admin::v1::RegisterRequest {
        name: "Shared".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let registered = operator
        .stacks
        .clone()
        .register(request)
        .await
        .unwrap()
        .into_inner();
    registered.stack.unwrap().stack_api_key
}

impl Replica {
    pub async fn start(
        postgres: &Postgres,
        ports: (u16, u16),
        signed_by: (&TempDir, &TestIssuer),
        settings: (&Tuning, Safeguards),
    ) -> Self {
        let (replica, served) = Self::begin(postgres, ports, signed_by, settings).await;
        served.await.expect("the replica serves");
        replica
    }

    /// Starts a replica, but does not wait until it is ready. The receiver completes when it is.
    async fn begin(
        postgres: &Postgres,
        (port, direct_port): (u16, u16),
        (folder, issuer): (&TempDir, &TestIssuer),
        (tuning, safeguards): (&Tuning, Safeguards),
    ) -> (Self, oneshot::Receiver<()>) {
        let link = Proxy::start(port).await;
        let control_link = Proxy::start(direct_port).await;
        let location: Location = postgres.url(link.port, DATABASE).parse().unwrap();
        let direct = postgres.url(control_link.port, DATABASE);
        let location = location.with_direct(&direct).unwrap();
        let pausable = PausableClock::new();
        let clock: Arc<dyn Clock> = pausable.clone();
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let size = PoolSize { connections: 16 };
        let store = Store::open(&location, size, (clock.clone(), entropy.clone()))
            .await
            .unwrap()
            .mistaking_origins(!safeguards.incarnation, !safeguards.system)
            .changing_without(!safeguards.change_origins, !safeguards.change_clocks);
        store.migrate().await.unwrap();
        store.require_current_schema().await.unwrap();
        let file = format!("{}{}", issuer::ISSUERS_FILE, federated::ENTRIES);
        let entries = auth::parse(&file, folder.path()).unwrap();
        let fetcher = Arc::new(HttpFetcher::default());
        let authenticator =
            Authenticator::new(entries, fetcher, clock.clone(), auth::DEFAULT_MAX_STALE);
        authenticator.load_files().await.unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let address = listeners.grpc.local_addr().unwrap().to_string();
        let admin_address = listeners.admin.local_addr().unwrap().to_string();
        let (serving, served) = oneshot::channel();
        let stop = CancellationToken::new();
        let (stopping, tuning) = (stop.clone(), tuning.clone());
        let now = clock.now().seconds();
        let running = tokio::spawn(async move {
            let store = Arc::new(store);
            let authenticator = Arc::new(authenticator);
            let parts = ServerParts {
                store,
                authenticator,
                catalogue: Arc::new(Catalogue::builtin()),
                routes: Arc::new(RouteTable::builtin().unwrap()),
                clock,
                entropy,
                tls: None,
                safeguards,
            };
            let announce = move || {
                let _ = serving.send(());
            };
            server::run(parts, &tuning, listeners, announce, stopping).await
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let client = |jwt: String| Client::new(channel.clone(), Some(format!("Bearer {jwt}")));
        let replica = Self {
            owner: client(issuer.user("owner", now)),
            service: client(issuer.service("content-api", now)),
            operator: client(issuer.operator("operator", now)),
            address,
            admin_address,
            link,
            control_link,
            clock: pausable,
            stop,
            running,
        };
        (replica, served)
    }

    /// Introspects a secret. If the result is an error, there is no verdict.
    pub async fn introspect(
        &self,
        stack: &str,
        secret: &str,
    ) -> Result<v1::IntrospectResponse, Status> {
        let request = introspect_request(stack, secret, &[]);
        let answered = self.service.introspection.clone().introspect(request).await;
        answered.map(tonic::Response::into_inner)
    }

    /// Introspects a secret with this `min_revision`.
    pub async fn introspect_since(
        &self,
        stack: &str,
        secret: &str,
        revision: &str,
    ) -> Result<v1::IntrospectResponse, Status> {
        let mut request = introspect_request(stack, secret, &[]);
        request.min_revision = revision.into();
        let answered = self.service.introspection.clone().introspect(request).await;
        answered.map(tonic::Response::into_inner)
    }

    /// Opens the replica's database connections and prepares the lookup statement on each of them,
    /// so that later a slow link delays a lookup by one round trip, not by three.
    pub async fn connect(&self, stack: &str) {
        let asked = (0..64).map(|_| {
            let unknown = Secret::generate(&OsEntropy).unwrap().expose().to_owned();
            async move { self.introspect(stack, &unknown).await }
        });
        futures_util::future::join_all(asked).await;
    }

    /// Waits until the replica answers that the token is active. It has cached the token then.
    pub async fn warm(&self, stack: &str, secret: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.introspect(stack, secret).await {
                Ok(answer) if answer.active => return,
                other => assert!(Instant::now() < until, "never active: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a graceful shutdown.
    pub fn drain(&self) {
        self.stop.cancel();
    }

    /// Sets the state of both links.
    pub fn links(&self, state: Link) {
        self.link.set(state);
        self.control_link.set(state);
    }

    /// Returns the value of a metric that the replica exposes.
    pub async fn metric(&self, name: &str) -> f64 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.admin_address)
            .await
            .unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
        self.running.abort();
    }
}
