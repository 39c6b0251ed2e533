//! Starts a server for one test, and creates clients for each role.

pub mod certificates;
pub mod checks;
pub mod clients;
pub mod clock;
pub mod database;
pub mod edges;
pub mod federated;
pub mod frames;
pub mod http;
pub mod issuer;
pub mod json;
pub mod late;
pub mod methods;
pub mod previews;
pub mod raw;
pub mod rehearsals;
pub mod requests;
pub mod skips;
pub mod watching;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use stacktoken::{
    app::Safeguards,
    auth::{self, Authenticator, HttpFetcher},
    config::Tuning,
    domain::{
        catalogue::Catalogue, catalogue_file, clock::Clock, entropy::Entropy, routes::RouteTable,
    },
    grpc::pb::{admin, v1},
    server::{self, Listeners, ServerParts, Tls, TlsFiles},
    store::{Location, PoolSize, Store},
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub use self::{
    clients::{Client, reason},
    clock::{ManualClock, SeededEntropy},
    issuer::{ISSUER, TestIssuer},
};

#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    tuning: Tuning,
}

/// Returns the defaults of the command line, except that a shutdown has no grace period.
pub fn tuning() -> Tuning {
    let mut tuning = Defaults::parse_from(["test"]).tuning;
    tuning.drain_delay = Some(Duration::ZERO);
    // Tests make more changes per second than people do, so the rate limit is raised. Other tests
    // cover the rate limiter.
    tuning.changes_per_second = 1_000_000.try_into().unwrap();
    tuning.changes_burst = 1_000_000.try_into().unwrap();
    tuning
}

/// A running server. It stops when it is dropped; `stop` shuts it down gracefully.
pub struct TestServer {
    pub address: String,
    pub admin_address: String,
    pub http_address: String,
    pub clock: Arc<ManualClock>,
    pub entropy: Arc<SeededEntropy>,
    pub issuer: TestIssuer,
    /// The API key of a stack that has an owner, an admin, a developer and a content manager.
    pub stack: String,
    pub data_dir: Arc<TempDir>,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<Result<(), server::ServeError>>>,
}

impl TestServer {
    /// Starts a server with the default settings.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a server with settings that `set` changes.
    pub async fn start_with(set: impl FnOnce(&mut Tuning)) -> Self {
        let data_dir = Arc::new(TempDir::new().unwrap());
        let mut server = Self::start_in(data_dir, ManualClock::new(), set).await;
        server.stack = server.register("Test stack").await;
        server
    }

    /// Starts a server with additional entries in the issuers file.
    pub async fn start_trusting(entries: &str) -> Self {
        let data_dir = Arc::new(TempDir::new().unwrap());
        let mut server = Self::start_trusting_in(data_dir, ManualClock::new(), entries).await;
        server.stack = server.register("Test stack").await;
        server
    }

    /// Starts a server with additional entries in the issuers file, on a store that may already
    /// exist. Registers no stack.
    pub async fn start_trusting_in(
        data_dir: Arc<TempDir>,
        clock: Arc<ManualClock>,
        entries: &str,
    ) -> Self {
        let issuer = TestIssuer::new();
        let folder = data_dir.path().to_owned();
        let file = format!("{}{}{entries}", issuer::ISSUERS_FILE, federated::ENTRIES);
        let known = authenticator(&issuer, &file, folder, clock.clone()).await;
        let (server, served) = Self::launch(data_dir, clock, |_| {}, (issuer, known)).await;
        served.await.expect("the server serves");
        server
    }

    /// Starts a server on a store that may already exist, and registers no stack.
    pub async fn start_in(
        data_dir: Arc<TempDir>,
        clock: Arc<ManualClock>,
        set: impl FnOnce(&mut Tuning),
    ) -> Self {
        let issuer = TestIssuer::new();
        let folder = data_dir.path().to_owned();
        let file = format!("{}{}", issuer::ISSUERS_FILE, federated::ENTRIES);
        let known = authenticator(&issuer, &file, folder, clock.clone()).await;
        let (server, served) = Self::launch(data_dir, clock, set, (issuer, known)).await;
        served.await.expect("the server serves");
        server
    }

    /// Starts a server with TLS and additional entries in the issuers file.
    pub async fn start_tls(files: TlsFiles, entries: &str, set: impl FnOnce(&mut Tuning)) -> Self {
        let (data_dir, clock) = (Arc::new(TempDir::new().unwrap()), ManualClock::new());
        let issuer = TestIssuer::new();
        let folder = data_dir.path().to_owned();
        let file = format!("{}{entries}", issuer::ISSUERS_FILE);
        let known = authenticator(&issuer, &file, folder, clock.clone()).await;
        let tls = Tls::load(files, clock.clone()).await.unwrap();
        let (server, served) =
            Self::launch_over(Some(tls), data_dir, clock, set, (issuer, known)).await;
        served.await.expect("the server serves");
        server
    }

    /// Starts a server with TLS, one of whose background tasks panics, and does not wait until it
    /// serves.
    pub async fn launch_failing(files: TlsFiles, task: &'static str) -> Self {
        let (data_dir, clock) = (Arc::new(TempDir::new().unwrap()), ManualClock::new());
        let issuer = TestIssuer::new();
        let folder = data_dir.path().to_owned();
        let known = authenticator(&issuer, issuer::ISSUERS_FILE, folder, clock.clone()).await;
        let tls = Tls::load(files, clock.clone()).await.unwrap();
        let set = |tuning: &mut Tuning| tuning.failing_task = Some(task);
        let known = (issuer, known);
        Self::launch_over(Some(tls), data_dir, clock, set, known)
            .await
            .0
    }

    /// Starts a server. Also returns a receiver that completes when the server is ready.
    pub async fn launch(
        data_dir: Arc<TempDir>,
        clock: Arc<ManualClock>,
        set: impl FnOnce(&mut Tuning),
        known: (TestIssuer, Authenticator),
    ) -> (Self, oneshot::Receiver<()>) {
        Self::launch_over(None, data_dir, clock, set, known).await
    }

    async fn launch_over(
        tls: Option<Tls>,
        data_dir: Arc<TempDir>,
        clock: Arc<ManualClock>,
        set: impl FnOnce(&mut Tuning),
        (issuer, authenticator): (TestIssuer, Authenticator),
    ) -> (Self, oneshot::Receiver<()>) {
        let mut tuning = tuning();
        set(&mut tuning);
        let catalogue = match &tuning.rules.catalogue.file {
            None => Catalogue::builtin(),
            Some(path) => catalogue_file::parse(&std::fs::read_to_string(path).unwrap()).unwrap(),
        };
        let routes = match &tuning.rules.authz_routes {
            None => RouteTable::builtin().unwrap(),
            Some(path) => {
                let text = std::fs::read_to_string(path).unwrap();
                RouteTable::parse(&text, &catalogue).unwrap()
            }
        };
        let entropy = Arc::new(SeededEntropy::new(7));
        let path = data_dir.path().join("stacktoken.db");
        let size = PoolSize { connections: 1 };
        let ambient = (
            clock.clone() as Arc<dyn Clock>,
            entropy.clone() as Arc<dyn Entropy>,
        );
        let store = Store::open(&Location::Sqlite(path), size, ambient)
            .await
            .unwrap();
        store.migrate().await.unwrap();
        store.require_current_schema().await.unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let listeners = listeners.with_http(any, None).await.unwrap();
        let http = listeners.http.as_ref().unwrap().listener.local_addr();
        let http_address = http.unwrap().to_string();
        let address = listeners.grpc.local_addr().unwrap().to_string();
        let admin_address = listeners.admin.local_addr().unwrap().to_string();
        let (serving, served) = oneshot::channel();
        let stop = CancellationToken::new();
        let (stopping, at) = (stop.clone(), clock.clone());
        let random = entropy.clone();
        let store = Arc::new(store);
        let running = tokio::spawn(async move {
            let parts = ServerParts {
                store: store.clone(),
                authenticator: Arc::new(authenticator),
                catalogue: Arc::new(catalogue),
                routes: Arc::new(routes),
                clock: at,
                entropy: random,
                tls,
                safeguards: Safeguards::default(),
            };
            let announce = move || {
                let _ = serving.send(());
            };
            let ended = server::run(parts, &tuning, listeners, announce, stopping).await;
            store.close().await;
            ended
        });
        let stack = String::new();
        let server = Self {
            address,
            admin_address,
            http_address,
            clock,
            entropy,
            issuer,
            stack,
            data_dir,
            stop,
            running: Some(running),
        };
        (server, served)
    }

    /// Returns the metrics that the admin port serves.
    pub async fn metrics(&self) -> String {
        scrape(&self.admin_address).await
    }

    /// Returns the path of the SQLite file.
    pub fn database(&self) -> PathBuf {
        self.data_dir.path().join("stacktoken.db")
    }

    /// Shuts the server down gracefully, and returns its result.
    pub async fn stop(mut self) -> Result<(), server::ServeError> {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap()
    }

    /// Waits until the server ends by itself.
    pub async fn ended(mut self) -> Result<(), server::ServeError> {
        self.running.take().unwrap().await.unwrap()
    }

    /// Opens a new connection.
    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Creates a client that sends this value in the header `authorization`.
    pub async fn with_authorization(&self, value: impl Into<String>) -> Client {
        Client::new(self.channel().await, Some(value.into()))
    }

    /// Creates a client without a credential.
    pub async fn anonymous(&self) -> Client {
        Client::new(self.channel().await, None)
    }

    /// Creates a client for the user with this subject.
    pub async fn user(&self, subject: &str) -> Client {
        let jwt = self.issuer.user(subject, self.clock.seconds());
        self.with_authorization(format!("Bearer {jwt}")).await
    }

    pub async fn owner(&self) -> Client {
        self.user("owner").await
    }

    pub async fn admin(&self) -> Client {
        self.user("admin").await
    }

    pub async fn developer(&self) -> Client {
        self.user("developer").await
    }

    pub async fn content_manager(&self) -> Client {
        self.user("content-manager").await
    }

    pub async fn stranger(&self) -> Client {
        self.user("stranger").await
    }

    /// Creates a client for a service that may introspect.
    pub async fn service(&self) -> Client {
        let jwt = self.issuer.service("content-api", self.clock.seconds());
        self.with_authorization(format!("Bearer {jwt}")).await
    }

    /// Creates a client for a service without a role.
    pub async fn service_without_role(&self) -> Client {
        let jwt = self.issuer.service("mailer", self.clock.seconds());
        self.with_authorization(format!("Bearer {jwt}")).await
    }

    pub async fn operator(&self) -> Client {
        let jwt = self.issuer.operator("operator", self.clock.seconds());
        self.with_authorization(format!("Bearer {jwt}")).await
    }

    /// Registers a stack with one member in each role, and returns the stack's key.
    pub async fn register(&self, name: &str) -> String {
        use admin::v1::SetMemberRequest;
        use v1::Role;
        let mut operator = self.operator().await;
        let request = admin::v1::RegisterRequest {
            name: name.into(),
            organization_uid: "org-1".into(),
            owner: Some(person("owner")),
            ..Default::default()
        };
        let registered = operator
            .stacks
            .register(request)
            .await
            .unwrap()
            .into_inner();
        let key = registered.stack.unwrap().stack_api_key;
        for (subject, role) in [
            ("admin", Role::Admin),
            ("developer", Role::Developer),
            ("content-manager", Role::ContentManager),
        ] {
            let member = Some(person(subject));
            let request = SetMemberRequest {
                stack_api_key: key.clone(),
                member,
                role: role.into(),
                validate_only: false,
            };
            operator.stacks.set_member(request).await.unwrap();
        }
        key
    }

    /// Issues a read-write token that never expires.
    pub async fn issue(&self, name: &str) -> v1::IssueResponse {
        let request = issue_request(&self.stack, name);
        self.owner()
            .await
            .tokens
            .issue(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Introspects a secret with the server's stack key. The response includes everything that it
    /// can.
    pub async fn introspect(&self, secret: &str, actions: &[&str]) -> v1::IntrospectResponse {
        let request = v1::IntrospectRequest {
            include: requests::INCLUDES.map(Into::into).to_vec(),
            ..introspect_request(&self.stack, secret, actions)
        };
        self.service()
            .await
            .introspection
            .introspect(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Returns the audit log of the server's stack, newest first.
    pub async fn audit(&self) -> Vec<stacktoken::grpc::pb::audit::v1::AuditEvent> {
        let request = stacktoken::grpc::pb::audit::v1::ListRequest {
            stack_api_key: self.stack.clone(),
            page_size: 100,
            ..Default::default()
        };
        self.operator()
            .await
            .audit
            .list(request)
            .await
            .unwrap()
            .into_inner()
            .events
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn authenticator(
    issuer: &TestIssuer,
    file: &str,
    folder: PathBuf,
    clock: Arc<ManualClock>,
) -> Authenticator {
    std::fs::write(folder.join("jwks.json"), issuer.jwks()).unwrap();
    let entries = auth::parse(file, &folder).unwrap();
    let fetcher = Arc::new(HttpFetcher::default());
    let authenticator = Authenticator::new(entries, fetcher, clock, auth::DEFAULT_MAX_STALE);
    authenticator.load_files().await.unwrap();
    authenticator
}

/// Returns the metrics that an admin port serves.
pub async fn scrape(admin_address: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let connected = tokio::net::TcpStream::connect(admin_address).await;
    let mut socket = connected.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

/// Returns a person whose issuer is the test issuer.
pub fn person(subject: &str) -> admin::v1::Person {
    admin::v1::Person {
        issuer: ISSUER.into(),
        subject: subject.into(),
        email: String::new(),
    }
}

/// Returns permissions that are not narrowed to modules or branches.
pub fn permissions(access: v1::Access) -> v1::Permissions {
    v1::Permissions {
        access: access.into(),
        modules: None,
        branches: None,
    }
}

pub fn never() -> v1::Expiry {
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::Never(true)),
    }
}

pub fn at(seconds: i64) -> v1::Expiry {
    let at = prost_types::Timestamp { seconds, nanos: 0 };
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::At(at)),
    }
}

/// Returns an expiry at this instant, given in microseconds.
pub fn at_instant(micros: i64) -> v1::Expiry {
    let at = prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000)).unwrap() * 1000,
    };
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::At(at)),
    }
}

pub fn now() -> v1::Expiry {
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::Now(true)),
    }
}

/// Returns an expiry this long after the decision.
pub fn after(seconds: i64, nanos: i32) -> v1::Expiry {
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::After(prost_types::Duration {
            seconds,
            nanos,
        })),
    }
}

pub fn on_date(date: &str) -> v1::Expiry {
    v1::Expiry {
        expiry: Some(v1::expiry::Expiry::OnDate(date.into())),
    }
}

/// Returns a request to issue a read-write token that never expires.
pub fn issue_request(stack: &str, name: &str) -> v1::IssueRequest {
    v1::IssueRequest {
        stack_api_key: stack.into(),
        name: name.into(),
        description: String::new(),
        permissions: Some(permissions(v1::Access::ReadWrite)),
        expiry: Some(never()),
        request_id: String::new(),
        validate_only: false,
        labels: BTreeMap::new(),
        federation: None,
    }
}

pub fn introspect_request(stack: &str, secret: &str, actions: &[&str]) -> v1::IntrospectRequest {
    let question = |name: &&str| v1::ActionQuestion {
        name: (*name).into(),
        ..Default::default()
    };
    v1::IntrospectRequest {
        token: secret.into(),
        stack_api_key: stack.into(),
        actions: actions.iter().map(question).collect(),
        ..Default::default()
    }
}
