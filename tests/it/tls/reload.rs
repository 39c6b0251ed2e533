//! Tests that a changed pair of certificate and key is loaded while calls continue, unless it is
//! invalid.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    Client, TestServer,
    certificates::{Ca, CertifiedKey, Mount, TlsClient, dns, uri},
    clients::reason,
    clock::START,
    introspect_request,
};

const ENTRIES: &str = r#"
[[mtls]]
identity = "assets.cms.svc"
caller   = "service"
"#;
/// The maximum time until a new pair is used.
const WITHIN: Duration = Duration::from_secs(5);

/// Returns how often the pair is swapped under load.
fn swaps() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_SWAPS").ok();
    set.map_or(100, |text| text.parse().unwrap())
}

/// Returns the server certificate that a new connection gets.
async fn shown(client: &TlsClient) -> Vec<u8> {
    let stream = client.handshake().await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Waits until new connections get this certificate. Returns how long that took.
async fn wait_until_shown(client: &TlsClient, pair: &CertifiedKey) -> Duration {
    let began = Instant::now();
    while shown(client).await != pair.der {
        assert!(began.elapsed() < WITHIN, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// Returns the value of a metric.
async fn metric(server: &TestServer, name: &str) -> f64 {
    let text = server.metrics().await;
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until_metric(server: &TestServer, name: &str, value: f64) {
    let began = Instant::now();
    while metric(server, name).await != value {
        assert!(began.elapsed() < WITHIN, "{name} is not {value}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_no_call() {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server(), &[]);
    let server = TestServer::start_tls(mount.files(false), "", |_| {}).await;
    let client = TlsClient::new(&server, &ca, None);
    let (stop, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = tokio::task::JoinSet::new();
    for long_lived in [true, true, false, false] {
        let client = client.clone();
        let (stop, calls) = (stop.clone(), calls.clone());
        load.spawn(async move {
            let mut channel = client.connect().await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                if !long_lived {
                    channel = client.connect().await.expect("a new connection");
                }
                let mut health = HealthClient::new(channel.clone());
                let request = HealthCheckRequest::default();
                health
                    .check(request)
                    .await
                    .expect("a call failed during a swap");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut latest = Duration::ZERO;
    for _ in 0..swaps() {
        let pair = ca.server();
        mount.swap(&pair, &[]);
        latest = latest.max(wait_until_shown(&client, &pair).await);
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let calls = calls.load(Ordering::Relaxed);
    println!(
        "{} swaps, {calls} calls, the latest new certificate after {latest:?}",
        swaps()
    );
    assert!(calls > swaps(), "too little load: {calls} calls");
    assert_eq!(
        metric(&server, "stacktoken_tls_reload_failures_total").await,
        0.0
    );
}

#[tokio::test]
async fn an_unusable_new_certificate_keeps_the_old_one_and_is_logged() {
    let ca = Ca::new("test CA");
    let first = ca.server();
    let mount = Mount::new(&first, &[]);
    let server = TestServer::start_tls(mount.files(false), "", |_| {}).await;
    let client = TlsClient::new(&server, &ca, None);
    let other = ca.server();
    let bad = [
        CertifiedKey {
            key: other.key.clone(),
            ..first.clone()
        },
        CertifiedKey {
            cert: "no certificate".into(),
            ..other.clone()
        },
        CertifiedKey {
            key: String::new(),
            ..other.clone()
        },
        ca.server_until(START - 1),
    ];
    for (number, pair) in bad.iter().enumerate() {
        mount.swap(pair, &[]);
        until_metric(&server, "stacktoken_tls_reload_failing", 1.0).await;
        assert_eq!(shown(&client).await, first.der, "{number}");
        mount.swap(&first, &[]);
        until_metric(&server, "stacktoken_tls_reload_failing", 0.0).await;
    }
    let counted = metric(&server, "stacktoken_tls_reload_failures_total").await;
    assert_eq!(counted, 4.0);
    mount.swap(&other, &[]);
    wait_until_shown(&client, &other).await;
}

#[tokio::test]
async fn expiry_of_the_certificate_in_use_is_a_metric() {
    let ca = Ca::new("test CA");
    let mount = Mount::new(&ca.server_until(START + 86_400), &[]);
    let server = TestServer::start_tls(mount.files(false), "", |_| {}).await;
    let gauge = "stacktoken_tls_certificate_expiry_timestamp_seconds{certificate=\"server\"}";
    assert_eq!(metric(&server, gauge).await, (START + 86_400) as f64);
    let later = ca.server_until(START + 30 * 86_400);
    mount.swap(&later, &[]);
    wait_until_shown(&TlsClient::new(&server, &ca, None), &later).await;
    until_metric(&server, gauge, (START + 30 * 86_400) as f64).await;
}

/// Returns whether the server accepts a client with this certificate.
async fn is_served(server: &TestServer, trusted: &Ca, client: &CertifiedKey) -> bool {
    let client = TlsClient::new(server, trusted, Some(client));
    match client.connect().await {
        Ok(channel) => HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_expired_ca_is_ignored_and_the_others_still_work() {
    let names = [dns("assets.cms.svc")];
    let (old, new) = (Ca::until("old CA", START + 60), Ca::new("new CA"));
    let (of_old, of_new) = (old.client(&names), new.client(&names));
    let first = new.server();
    let mount = Mount::new(&first, &[&old, &new]);
    let server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
    assert!(is_served(&server, &new, &of_old).await);
    server.clock.advance(Duration::from_secs(60));
    let began = Instant::now();
    while is_served(&server, &new, &of_old).await {
        assert!(began.elapsed() < WITHIN, "an expired CA is still trusted");
    }
    assert!(is_served(&server, &new, &of_new).await);
    // The expired CA is still in the bundle, but does not prevent a reload.
    let renewed = new.server();
    mount.swap(&renewed, &[&old, &new]);
    wait_until_shown(&TlsClient::new(&server, &new, None), &renewed).await;
    assert_eq!(metric(&server, "stacktoken_tls_reload_failing").await, 0.0);
}

#[tokio::test]
async fn with_the_last_ca_expired_no_certificate_counts() {
    let names = [dns("assets.cms.svc")];
    let (ca, signer) = (Ca::until("clients", START + 60), Ca::new("servers"));
    let client = ca.client(&names);
    let mount = Mount::new(&signer.server(), &[&ca]);
    let server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
    let who = async || {
        let client = TlsClient::new(&server, &signer, Some(&client));
        let mut client = Client::new(client.connect().await.ok()?, None);
        let asked = introspect_request("blt0000000000000000", "x", &[]);
        let refused = client.introspection.introspect(asked).await.unwrap_err();
        Some(reason(&refused))
    };
    assert_eq!(who().await.as_deref(), Some("ROLE_REQUIRED"));
    server.clock.advance(Duration::from_secs(60));
    until_metric(&server, "stacktoken_tls_reload_failing", 1.0).await;
    assert_eq!(who().await.as_deref(), Some("CREDENTIAL_MISSING"));
}

#[tokio::test]
async fn clients_of_a_ca_that_was_replaced_get_no_new_connection() {
    let (old, new) = (Ca::new("old CA"), Ca::new("new CA"));
    let pair = old.server();
    let mount = Mount::new(&pair, &[&old]);
    let server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
    let names = [dns("assets.cms.svc"), uri("spiffe://example.org/assets")];
    let (of_old, of_new) = (old.client(&names), new.client(&names));
    assert!(is_served(&server, &old, &of_old).await);
    assert!(!is_served(&server, &old, &of_new).await);
    mount.swap(&pair, &[&new]);
    let began = Instant::now();
    while !is_served(&server, &old, &of_new).await {
        assert!(began.elapsed() < WITHIN, "the new CA is not trusted");
    }
    assert!(!is_served(&server, &old, &of_old).await);
}
