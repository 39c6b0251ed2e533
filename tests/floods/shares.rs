//! Tests that one caller, with or without a credential, cannot take all capacity: neither by calls
//! whose message never arrives, nor by JWTs with unknown keys while the issuer's key URL hangs.
//! Other callers are still served.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use rcgen::SanType;
use rustix::{process::setpriority_process, thread::gettid};
use stacktoken::grpc::pb::v1;
use tokio::sync::{Mutex, MutexGuard};
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    honest::flood_for,
    served::{IssuersFolder, RunningServer, migrate, now, register_as},
    support::{
        Client, certificates::Ca, introspect_request, issue_request, issuer::ISSUERS_FILE, reason,
        requests::list_request,
    },
};

/// The factor by which the 99th percentile of verdict durations may grow, as in `honest`.
pub const SLOWER: f64 = if cfg!(debug_assertions) { 10.0 } else { 3.0 };
pub const CONNECTIONS: usize = 16;
const STREAMS: usize = 256;

/// Held during an attack, because attacks at the same time would distort each other's measurements.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The program under attack, and what other callers need to call it.
pub struct Target {
    pub served: RunningServer,
    ca: Option<Ca>,
    pub stack: String,
    secret: String,
    _alone: MutexGuard<'static, ()>,
}

/// The numbers of successful calls and of all calls, and the 99th percentile of verdict durations.
struct Measurement {
    verdicts: (usize, usize),
    lists: (usize, usize),
    p99: Duration,
}

impl Target {
    pub async fn start(issuers_folder: IssuersFolder, tls: bool, arguments: &[&str]) -> Self {
        let alone = ALONE.lock().await;
        let ca = tls.then(|| Ca::new("shares"));
        if let Some(ca) = &ca {
            let name = SanType::DnsName("localhost".try_into().unwrap());
            let pair = ca.sign(|params| params.subject_alt_names.push(name));
            issuers_folder.write("cert.pem", &pair.cert);
            issuers_folder.write("key.pem", &pair.key);
        }
        let url = issuers_folder.sqlite();
        migrate(&url);
        let served = RunningServer::start_on(issuers_folder, &url, |command| {
            command.args(arguments);
            if tls {
                command.args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
            }
        });
        served.serves().await;
        let mut target = Self {
            served,
            ca,
            stack: String::new(),
            secret: String::new(),
            _alone: alone,
        };
        let operator = target.served.issuer.operator("operator", now());
        target.stack = register_as(target.client(&operator).await).await;
        let mut owner = target.owner().await;
        let issued = owner.tokens.issue(issue_request(&target.stack, "honest"));
        target.secret = issued.await.unwrap().into_inner().secret;
        target
    }

    pub fn endpoint(&self, from: u8) -> Endpoint {
        let port = self.served.port;
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, from));
        let endpoint = match &self.ca {
            None => Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap(),
            Some(ca) => {
                let tls = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(ca.pem()))
                    .domain_name("localhost");
                let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"));
                endpoint.unwrap().tls_config(tls).unwrap()
            }
        };
        endpoint.local_address(Some(source))
    }

    async fn client(&self, jwt: &str) -> Client {
        let channel = self.endpoint(1).connect().await.unwrap();
        Client::new(channel, Some(format!("Bearer {jwt}")))
    }

    pub async fn owner(&self) -> Client {
        let owner = self.served.issuer.user("owner", now());
        self.client(&owner).await
    }

    async fn service(&self, name: &str) -> Client {
        let service = self.served.issuer.service(name, now());
        self.client(&service).await
    }

    fn ask(&self) -> v1::IntrospectRequest {
        introspect_request(&self.stack, &self.secret, &[])
    }

    /// Measures for a while how other callers are served, with verdicts from the cache and with
    /// lists.
    async fn measure(&self, lasts: Duration) -> Measurement {
        let (mut service, mut owner) = (self.service("content-api").await, self.owner().await);
        let until = Instant::now() + lasts;
        let (mut verdicts, mut times) = ((0, 0), Vec::new());
        let asking = async {
            while Instant::now() < until {
                let began = Instant::now();
                let asked = service.introspection.introspect(self.ask()).await;
                times.push(began.elapsed());
                verdicts.1 += 1;
                verdicts.0 += usize::from(asked.is_ok_and(|asked| asked.get_ref().active));
            }
        };
        let mut lists = (0, 0);
        let listing = async {
            while Instant::now() < until {
                let listed = owner.tokens.list(list_request(&self.stack)).await;
                lists.1 += 1;
                lists.0 += usize::from(listed.is_ok());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::join!(asking, listing);
        times.sort();
        Measurement {
            verdicts,
            lists,
            p99: times[times.len() - 1 - times.len() / 100],
        }
    }

    /// Asserts that other callers are served during this attack.
    async fn assert_withstands(&self, what: &str, attack: impl FnOnce(Arc<AtomicBool>) -> Attack) {
        self.assert_withstands_until(what, SLOWER, attack, || true)
            .await;
    }

    /// Asserts that other callers are served, and at most `slower` times slower, during this attack,
    /// which lasts at least until `is_complete`.
    pub async fn assert_withstands_until(
        &self,
        what: &str,
        slower: f64,
        attack: impl FnOnce(Arc<AtomicBool>) -> Attack,
        is_complete: impl Fn() -> bool,
    ) {
        self.measure(Duration::from_millis(500)).await;
        let calm = self.measure(flood_for()).await;
        let attack = attack(Arc::default());
        // Wait until the attack has reached its full load.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let mut best = f64::MAX;
        let (mut verdicts, mut lists) = ((0, 0), (0, 0));
        // An attack slows every measurement, but other load on this machine slows only some. So the
        // fastest measurement counts.
        for window in 1..=30 {
            let stormy = self.measure(flood_for()).await;
            best = best.min(stormy.p99.as_secs_f64() / calm.p99.as_secs_f64());
            verdicts = (
                verdicts.0 + stormy.verdicts.0,
                verdicts.1 + stormy.verdicts.1,
            );
            lists = (lists.0 + stormy.lists.0, lists.1 + stormy.lists.1);
            println!(
                "{what}: verdicts {verdicts:?}, lists {lists:?}, p99 {:?} -> {:?}",
                calm.p99, stormy.p99
            );
            if (best <= slower || window >= 4) && is_complete() {
                break;
            }
        }
        let calls = attack.end();
        println!("{what}: {calls} calls of the attack, {best:.1} x");
        assert!(calls > 0, "{what}: the attack made no call");
        assert!(
            verdicts.0 * 100 >= verdicts.1 * 99,
            "{what}: verdicts {verdicts:?}"
        );
        assert!(lists.0 * 10 >= lists.1 * 9, "{what}: lists {lists:?}");
        assert!(best <= slower, "{what}: {best:.1} times slower");
    }
}

/// A thread that attacks until it is stopped.
pub struct Attack {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Attack {
    /// Makes calls one after the other on these channels, with `at_once` such sequences per
    /// channel.
    pub fn begin(
        stop: Arc<AtomicBool>,
        endpoints: Vec<Endpoint>,
        at_once: usize,
        call: impl AsyncFn(Channel, usize) -> Result<(), Status> + Clone + 'static + Send,
    ) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let (stopping, counted) = (stop.clone(), calls.clone());
        let thread = thread::spawn(move || {
            // Real attackers would have their own machines. Here they share this one, so they get
            // the lowest priority.
            let _ = setpriority_process(Some(gettid()), 19);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime.unwrap(), async {
                for endpoint in endpoints {
                    let channel = endpoint.connect_lazy();
                    for _ in 0..at_once {
                        let (channel, call) = (channel.clone(), call.clone());
                        let counted = counted.clone();
                        tokio::task::spawn_local(async move {
                            loop {
                                let number = counted.fetch_add(1, Ordering::Relaxed);
                                let _ = call(channel.clone(), number).await;
                                tokio::time::sleep(Duration::from_millis(500)).await;
                            }
                        });
                    }
                }
                while !stopping.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self {
            stop,
            calls,
            thread,
        }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.calls.load(Ordering::Relaxed)
    }
}

/// Starts a call and never sends its request message.
async fn silent(channel: Channel, path: &'static str, jwt: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|_| Status::unavailable("gone"))?;
    let mut request = Request::new(tokio_stream::pending::<v1::ListRequest>());
    let bearer = format!("Bearer {jwt}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let codec = ProstCodec::<v1::ListRequest, v1::ListResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.client_streaming(request, path, codec).await.map(drop)
}

/// Starts an attack by a user without a role in any stack, who opens streams and never sends a
/// message.
async fn silence(target: &Target, path: &'static str, addresses: u8) -> Attack {
    let jwt = target.served.issuer.user("stranger", now());
    let at = |number: usize| 2 + u8::try_from(number).unwrap() % addresses;
    let endpoints = (0..CONNECTIONS).map(|number| target.endpoint(at(number)));
    Attack::begin(
        Arc::default(),
        endpoints.collect(),
        STREAMS,
        async move |channel, _| silent(channel, path, &jwt).await,
    )
}

async fn assert_withstands_silence(path: &'static str, tls: bool, addresses: u8) {
    let target = Target::start(IssuersFolder::new(), tls, &[]).await;
    let attack = silence(&target, path, addresses).await;
    target
        .assert_withstands(
            &format!("silence at {path}, TLS {tls}, {addresses} addresses"),
            |_| attack,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_message_block_no_other_call() {
    assert_withstands_silence("/stacktoken.v1.TokenService/List", false, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_from_many_addresses_over_tls() {
    assert_withstands_silence("/stacktoken.v1.TokenService/List", true, CONNECTIONS as u8).await;
}

/// Configures an issuer whose key URL answers once and then hangs.
fn hanging_issuer(issuers_folder: &IssuersFolder) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let by_url = format!("jwks_url = \"http://127.0.0.1:{port}/keys\"");
    let issuers = ISSUERS_FILE.replace("jwks_file  = \"jwks.json\"", &by_url);
    issuers_folder.write("issuers.toml", &issuers);
    let jwks = issuers_folder.issuer.jwks();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for (number, client) in listener.incoming().flatten().enumerate() {
            if number == 0 {
                answer(client, &jwks);
            } else {
                kept.push(client);
            }
        }
    });
}

fn answer(mut client: TcpStream, jwks: &str) {
    let _ = client.read(&mut [0; 1024]);
    let length = jwks.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = client.write_all(format!("{head}{jwks}").as_bytes());
}

/// Returns a JWT with an invalid signature and an unknown key.
fn forged(number: usize) -> String {
    let encode = |json: serde_json::Value| BASE64.encode(json.to_string());
    let header = serde_json::json!({"alg": "ES256", "kid": format!("k{number}")});
    let claims = serde_json::json!({
        "iss": "https://login.test", "aud": "stacktoken", "sub": "anybody",
        "exp": now() + 3600, "iat": now(),
    });
    format!(
        "{}.{}.{}",
        encode(header),
        encode(claims),
        BASE64.encode([1; 64])
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_keep_no_other_caller_out_while_the_key_address_hangs() {
    let issuers_folder = IssuersFolder::new();
    hanging_issuer(&issuers_folder);
    let target = Target::start(issuers_folder, false, &[]).await;
    let endpoints = (0..CONNECTIONS).map(|_| target.endpoint(2)).collect();
    let slowest = Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = slowest.clone();
    let attack = |stop| {
        Attack::begin(stop, endpoints, STREAMS, async move |channel, number| {
            let bearer = Some(format!("Bearer {}", forged(number)));
            let mut client = Client::new(channel, bearer);
            let began = Instant::now();
            let refused = client
                .tokens
                .list(list_request("blt0000000000000000"))
                .await;
            times.lock().unwrap().push(began.elapsed());
            refused.map(drop)
        })
    };
    target.assert_withstands("unknown keys", attack).await;
    // Only the call that started the fetch waits for its full duration. The other calls join the
    // fetch and wait for at most 250 ms.
    let times = slowest.lock().unwrap();
    let waited = times.iter().filter(|time| **time > Duration::from_secs(3));
    assert!(waited.count() <= 1, "{:?}", times.iter().max());
}

/// A gateway that forwards all traffic counts as one caller, but its verdicts must not be
/// throttled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_carries_all_traffic_is_not_throttled() {
    let target = Target::start(IssuersFolder::new(), false, &[]).await;
    let mut service = target.service("content-api").await;
    service
        .introspection
        .introspect(target.ask())
        .await
        .unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let gateway = target.service("gateway-1").await;
        for _ in 0..64 {
            let (mut gateway, ask) = (gateway.clone(), target.ask());
            asking.spawn(async move {
                for _ in 0..10 {
                    let asked = gateway.introspection.introspect(ask.clone()).await;
                    assert!(asked.unwrap().into_inner().active);
                }
            });
        }
    }
    while let Some(ended) = asking.join_next().await {
        ended.expect("a question failed");
    }
}

/// Only calls that need the store count toward the limit of a caller; cached verdicts do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_hits_are_answered_beyond_the_callers_limit() {
    let target = Target::start(
        IssuersFolder::new(),
        false,
        &["--max-calls-per-introspector", "0"],
    )
    .await;
    let mut service = target.service("content-api").await;
    let refused = service.introspection.introspect(target.ask()).await;
    assert_eq!(
        reason(&refused.unwrap_err()),
        "OVERLOADED",
        "a first use needs the store"
    );
    let target = {
        drop(target);
        Target::start(
            IssuersFolder::new(),
            false,
            &["--max-calls-per-introspector", "1"],
        )
        .await
    };
    let mut service = target.service("content-api").await;
    service
        .introspection
        .introspect(target.ask())
        .await
        .unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (mut service, ask) = (service.clone(), target.ask());
        asking.spawn(async move { service.introspection.introspect(ask).await.map(drop) });
    }
    while let Some(ended) = asking.join_next().await {
        ended.unwrap().expect("answered from the cache");
    }
}

/// A caller that makes many calls at once is limited, and other callers are unaffected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_has_its_share_and_no_more() {
    let target = Target::start(
        IssuersFolder::new(),
        false,
        &["--max-calls-per-caller", "2"],
    )
    .await;
    let stranger = target.served.issuer.user("stranger", now());
    let stranger = target.client(&stranger).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (mut stranger, request) = (stranger.clone(), list_request(&target.stack));
        asking.spawn(async move { reason(&stranger.tokens.list(request).await.unwrap_err()) });
    }
    let mut owner = target.owner().await;
    for _ in 0..5 {
        owner
            .tokens
            .list(list_request(&target.stack))
            .await
            .unwrap();
    }
    let mut reasons = Vec::new();
    while let Some(ended) = asking.join_next().await {
        reasons.push(ended.unwrap());
    }
    let count = |wanted: &str| reasons.iter().filter(|reason| *reason == wanted).count();
    assert!(
        count("OVERLOADED") > 0 && count("STACK_NOT_FOUND") > 0,
        "{reasons:?}"
    );
    assert_eq!(count("OVERLOADED") + count("STACK_NOT_FOUND"), 200);
}
