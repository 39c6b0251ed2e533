//! Tests the ports before and after the store is opened. Connections and streams survive the
//! transition.

use std::{sync::Arc, time::Duration};

use stacktoken::{
    app::Safeguards,
    auth::{self, Authenticator, HttpFetcher},
    domain::{catalogue::Catalogue, clock::Clock, entropy::Entropy, routes::RouteTable},
    server::{self, Listeners, PortDeps, ServeError, ServiceDeps},
    store::{Location, PoolSize, Store},
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus::{self, NotServing, Serving},
    health_client::HealthClient,
};

use crate::{
    support::{
        ManualClock, SeededEntropy,
        database::eventually,
        issuer::{ISSUERS_FILE, TestIssuer},
        raw::{Metadata, call, outcome},
        reason, tuning,
    },
    wire::{self, RawConnection},
};

const INTROSPECT: &str = "/stacktoken.v1.IntrospectionService/Introspect";

/// A server that is still waiting for its store.
struct WaitingServer {
    address: String,
    admin_address: String,
    folder: TempDir,
    clock: Arc<ManualClock>,
    store: oneshot::Sender<Arc<Store>>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
}

impl WaitingServer {
    async fn start() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), ManualClock::new());
        std::fs::write(folder.path().join("jwks.json"), TestIssuer::new().jwks()).unwrap();
        let entries = auth::parse(ISSUERS_FILE, folder.path()).unwrap();
        let fetcher = Arc::new(HttpFetcher::default());
        let max_stale = auth::DEFAULT_MAX_STALE;
        let authenticator = Authenticator::new(entries, fetcher, clock.clone(), max_stale);
        authenticator.load_files().await.unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let address = listeners.grpc.local_addr().unwrap().to_string();
        let admin_address = listeners.admin.local_addr().unwrap().to_string();
        let front = PortDeps {
            authenticator: Arc::new(authenticator),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(7)),
            tls: None,
        };
        let (store, opened) = oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let mut ports = listeners.open(front, &tuning());
            let store = tokio::select! {
                store = ports.answer_while(opened) => store?.expect("a store"),
                () = stopped.cancelled() => {
                    ports.close().await;
                    return Ok(());
                }
            };
            let back = ServiceDeps {
                store,
                catalogue: Arc::new(Catalogue::builtin()),
                routes: Arc::new(RouteTable::builtin().unwrap()),
                safeguards: Safeguards::default(),
            };
            server::run_on_ports(ports, back, || {}, stopped).await
        });
        Self {
            address,
            admin_address,
            folder,
            clock,
            store,
            stop,
            running,
        }
    }

    /// Opens and migrates the store.
    async fn opened(&self) -> Arc<Store> {
        let path = self.folder.path().join("stacktoken.db");
        let ambient = (
            self.clock.clone() as Arc<dyn Clock>,
            Arc::new(SeededEntropy::new(8)) as Arc<dyn Entropy>,
        );
        let size = PoolSize { connections: 1 };
        let store = Store::open(&Location::Sqlite(path), size, ambient).await;
        let store = store.unwrap();
        store.migrate().await.unwrap();
        store.require_current_schema().await.unwrap();
        Arc::new(store)
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }
}

async fn watch(channel: Channel) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(channel);
    let watching = health.watch(HealthCheckRequest::default()).await;
    watching.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let told = tokio::time::timeout(Duration::from_secs(20), stream.message()).await;
    let told = told.expect("no change of the health status");
    told.unwrap().expect("the stream ended").status()
}

/// Sends calls whose messages follow their headers after a delay, so that the server can refuse a
/// call before its message arrives.
async fn ask_slowly(wire: &mut RawConnection, streams: std::ops::Range<u32>) {
    for stream in streams.map(|at| 1 + 2 * at) {
        wire.send(&wire::headers(stream, wire::END_HEADERS)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        wire.send(&wire::message(stream, b"")).await;
        wire.expect_frame(wire::HEADERS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_made_while_the_store_is_away_stay_open_when_it_comes() {
    let waiting = WaitingServer::start().await;
    let mut wire = RawConnection::connected(&waiting.address).await;
    ask_slowly(&mut wire, 0..20).await;
    let channel = waiting.channel().await;
    let mut health = watch(channel.clone()).await;
    assert_eq!(next(&mut health).await, NotServing);
    let ask = async || outcome(&call(&channel, INTROSPECT, Metadata::nothing(), vec![]).await);
    let refused = (Code::Unavailable, "STORE_UNAVAILABLE".to_owned());
    assert_eq!(ask().await, refused);

    let store = waiting.opened().await;
    assert!(waiting.store.send(store.clone()).is_ok());
    // The stream and the connections were opened before the store was.
    assert_eq!(next(&mut health).await, Serving);
    let missing = (Code::Unauthenticated, "CREDENTIAL_MISSING".to_owned());
    assert_eq!(ask().await, missing);
    ask_slowly(&mut wire, 20..40).await;
    wire.send(&wire::ping()).await;
    wire.expect_frame(wire::PING).await;
    let metrics = crate::support::scrape(&waiting.admin_address).await;
    for counted in [
        "stacktoken_errors_total{reason=\"STORE_UNAVAILABLE\"} 21",
        "stacktoken_errors_total{reason=\"CREDENTIAL_MISSING\"} 21",
        "stacktoken_connections 2",
    ] {
        assert!(metrics.contains(counted), "{counted}: {metrics}");
    }
    waiting.stop.cancel();
    waiting.running.await.unwrap().unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_while_waiting_sends_goaway() {
    let waiting = WaitingServer::start().await;
    let mut wire = RawConnection::connected(&waiting.address).await;
    ask_slowly(&mut wire, 0..1).await;
    let mut health = watch(waiting.channel().await).await;
    assert_eq!(next(&mut health).await, NotServing);
    waiting.stop.cancel();
    assert!(wire.next_frame_of(wire::GO_AWAY).await.is_some());
    let ended = health.message().await.unwrap_err();
    assert_eq!(reason(&ended), "DRAINING");
    drop(wire);
    eventually("it ends", async || {
        waiting.running.is_finished().then_some(())
    })
    .await;
}
