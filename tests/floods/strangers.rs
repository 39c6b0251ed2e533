//! Strangers: anyone with an account at a public issuer has a valid JWT. 10,000 of them exchange, and
//! no token trusts any.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use stacktoken::grpc::pb::audit::v1::{AuditEvent, ListRequest};
use tonic::Code;

use crate::{
    served::{IssuersFolder, now},
    shares::{Attack, CONNECTIONS, SLOWER, Target},
    support::{
        Client,
        federated::{ENTRIES, exchange_request, federated_request, job},
        issuer::ISSUERS_FILE,
    },
};

const STRANGERS: usize = 10_000;
/// How many exchanges each connection makes at the same time.
const AT_ONCE: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_strangers_slow_nobody_and_write_one_row_a_minute() {
    let folder = IssuersFolder::new();
    folder.write("issuers.toml", &format!("{ISSUERS_FILE}{ENTRIES}"));
    let target = Target::start(folder, false, &[]).await;
    let mut owner = target.owner().await;
    let request = federated_request(&target.stack, "ci");
    let issued = owner.tokens.issue(request).await.unwrap().into_inner();
    let request = exchange_request(&target.stack, &issued.token.unwrap().token_uid);
    let jwts = jwts(&target);
    let refused = Arc::new(AtomicUsize::new(0));
    let endpoints = (0..CONNECTIONS).map(|_| target.endpoint(2)).collect();
    let (began, counted) = (Instant::now(), refused.clone());
    let attack = |stop| {
        Attack::begin(stop, endpoints, AT_ONCE, async move |channel, number| {
            let bearer = Some(format!("Bearer {}", jwts[number % STRANGERS]));
            let mut stranger = Client::new(channel, bearer);
            let status = stranger.exchange.exchange(request.clone()).await;
            let status = status.expect_err("a stranger got a secret");
            let is_refused = status.code() == Code::PermissionDenied;
            counted.fetch_add(is_refused.into(), Ordering::Relaxed);
            Err(status)
        })
    };
    let all = || refused.load(Ordering::Relaxed) >= STRANGERS;
    target
        .assert_withstands_until("strangers", SLOWER, attack, all)
        .await;
    assert!(all(), "only {refused:?} were refused");
    let minutes = began.elapsed().as_secs() / 60 + 2;
    let events = refusals(&mut owner, &target.stack, STRANGERS).await;
    println!("{refused:?} refusals in {} rows", events.len());
    assert!(events.len() as u64 <= minutes, "{events:?}");
}

/// Signs a JWT for each stranger.
fn jwts(target: &Target) -> Arc<Vec<String>> {
    let now = now();
    let jwts = (0..STRANGERS).map(|number| {
        target.served.issuer.sign(&job(
            now,
            json!({
                "sub": format!("repo:stranger{number}/x:ref:refs/heads/main"),
                "repository_id": (number + 100).to_string(),
                "repository_owner_id": (number + 100).to_string(),
            }),
        ))
    });
    Arc::new(jwts.collect())
}

/// Returns the refused exchanges in the audit, once they stand for at least this many.
async fn refusals(owner: &mut Client, stack: &str, least: usize) -> Vec<AuditEvent> {
    for _ in 0..100 {
        let request = ListRequest {
            stack_api_key: stack.to_owned(),
            page_size: 100,
            ..Default::default()
        };
        let listed = owner.audit.list(request).await.unwrap().into_inner();
        let events = listed.events.into_iter();
        let refused: Vec<_> = events
            .filter(|event| event.error_reason == "EXCHANGE_REFUSED")
            .collect();
        let count: u64 = refused.iter().map(|event| u64::from(event.count)).sum();
        if count >= least as u64 {
            return refused;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the refusals are not in the audit");
}
