//! Tests that an acknowledged change survives `kill -9` together with its audit row.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use rustix::process::Signal;
use stacktoken::grpc::pb::{admin, audit, v1};
use tokio::task::JoinSet;

use crate::{
    program::{Dev, folder},
    support::{Client, clock::FAR, introspect_request, issue_request, methods},
};

const ROUNDS: u64 = 30;
const CLIENTS: u64 = 4;

/// The changes to one token that the program has acknowledged.
#[derive(Clone, Default)]
struct TokenRecord {
    secret: String,
    expires_at: Option<i64>,
    revoked: bool,
    /// The response to a change was lost, so the change may or may not have been made.
    unknown: bool,
}

type AcknowledgedTokens = Arc<Mutex<BTreeMap<String, TokenRecord>>>;

/// Issues tokens, changes their expiries and revokes them until the program is killed.
async fn write(mut owner: Client, stack: String, book: AcknowledgedTokens, seed: u64) {
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    for at in 0.. {
        let name = format!("t{seed}-{at}");
        let Ok(issued) = owner.tokens.issue(issue_request(&stack, &name)).await else {
            return;
        };
        let issued = issued.into_inner();
        let uid = issued.token.unwrap().token_uid;
        let known = TokenRecord {
            secret: issued.secret,
            ..TokenRecord::default()
        };
        book.lock().unwrap().insert(uid.clone(), known);
        let kind = random.next_u32() % 3;
        if kind == 0 {
            continue;
        }
        book.lock().unwrap().get_mut(&uid).unwrap().unknown = true;
        let seconds = FAR + i64::from(random.next_u32() % 1000);
        let done = if kind == 1 {
            let request = v1::SetExpiryRequest {
                stack_api_key: stack.clone(),
                token_uid: uid.clone(),
                expiry: Some(crate::support::at(seconds)),
                validate_only: false,
                etag: String::new(),
            };
            owner.tokens.set_expiry(request).await.map(drop)
        } else {
            let request = v1::RevokeRequest {
                stack_api_key: stack.clone(),
                token_uid: uid.clone(),
                reason: "round".into(),
                validate_only: false,
                etag: String::new(),
            };
            owner.tokens.revoke(request).await.map(drop)
        };
        if done.is_err() {
            return;
        }
        let mut book = book.lock().unwrap();
        let known = book.get_mut(&uid).unwrap();
        known.unknown = false;
        known.revoked = kind == 2;
        known.expires_at = (kind == 1).then_some(seconds);
    }
}

/// Returns the methods in the audit for each token.
async fn audited(operator: &mut Client, stack: &str) -> HashMap<String, Vec<String>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let mut page_token = String::new();
    loop {
        let request = audit::v1::ListRequest {
            stack_api_key: stack.into(),
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let page = operator.audit.list(request).await.unwrap().into_inner();
        for event in page.events {
            found.entry(event.token_uid).or_default().push(event.method);
        }
        if page.next_page_token.is_empty() {
            return found;
        }
        page_token = page.next_page_token;
    }
}

async fn listed(operator: &mut Client, stack: &str) -> BTreeMap<String, v1::Token> {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRequest {
            stack_api_key: stack.into(),
            page_size: 100,
            page_token,
            ..Default::default()
        };
        let page = operator.tokens.list(request).await.unwrap().into_inner();
        found.extend(
            page.tokens
                .into_iter()
                .map(|token| (token.token_uid.clone(), token)),
        );
        if page.next_page_token.is_empty() {
            return found;
        }
        page_token = page.next_page_token;
    }
}

async fn new_stack(operator: &mut Client) -> String {
    let request = admin::v1::RegisterRequest {
        name: "Crash".into(),
        organization_uid: "demo".into(),
        owner: Some(admin::v1::Person {
            issuer: "https://dev.stacktoken.invalid".into(),
            subject: "owner".into(),
            email: String::new(),
        }),
        token_limit: Some(1000),
        ..Default::default()
    };
    let registered = operator
        .stacks
        .register(request)
        .await
        .unwrap()
        .into_inner();
    registered.stack.unwrap().stack_api_key
}

fn contains(methods: &[String], method: &str) -> bool {
    methods.iter().any(|audited| audited == method)
}

/// Asserts that every token has the state that was acknowledged, and that every token in the store
/// has its audit rows.
async fn check(dev: &Dev, stack: &str, book: &AcknowledgedTokens) {
    let (mut operator, mut service) = (
        dev.client("operator_jwt").await,
        dev.client("service_jwt").await,
    );
    let rows = listed(&mut operator, stack).await;
    let trail = audited(&mut operator, stack).await;
    let book = book.lock().unwrap().clone();
    for (uid, known) in &book {
        let row = rows.get(uid).unwrap_or_else(|| panic!("{uid} is lost"));
        let actions = &trail[uid];
        let (mut expected, state) = (vec![methods::ISSUE], row.state());
        if known.revoked {
            expected.push(methods::REVOKE);
            assert_eq!(
                state,
                v1::TokenState::Revoked,
                "the revoke of {uid} is lost"
            );
        }
        if let Some(seconds) = known.expires_at {
            expected.push(methods::SET_EXPIRY);
            assert_eq!(
                row.expires_at.unwrap().seconds,
                seconds,
                "the expiry of {uid} is lost"
            );
        }
        assert!(
            expected.iter().all(|method| contains(actions, method)),
            "{uid}: {actions:?}"
        );
        if !known.unknown {
            let question = introspect_request(stack, &known.secret, &[]);
            let answer = service
                .introspection
                .introspect(question)
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.active, !known.revoked, "{uid}");
        }
    }
    let issued: HashSet<_> = trail
        .iter()
        .filter(|(_, actions)| contains(actions, methods::ISSUE))
        .map(|(uid, _)| uid.clone())
        .collect();
    assert_eq!(
        issued,
        rows.keys().cloned().collect(),
        "tokens and audit rows differ"
    );
    for (uid, actions) in &trail {
        let distinct: HashSet<_> = actions.iter().collect();
        assert_eq!(
            distinct.len(),
            actions.len(),
            "{uid} has two rows for one change: {actions:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_thirty_times() {
    let folder = folder();
    let mut random = ChaCha20Rng::seed_from_u64(9);
    let mut dev = Dev::start(folder.path());
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        // Each round has its own stack, so that each check stays small.
        let stack = new_stack(&mut dev.client("operator_jwt").await).await;
        let book = AcknowledgedTokens::default();
        let mut writers = JoinSet::new();
        for client in 0..CLIENTS {
            let owner = dev.client("owner_jwt").await;
            writers.spawn(write(
                owner,
                stack.clone(),
                book.clone(),
                round * CLIENTS + client,
            ));
        }
        let lives = Duration::from_millis(20 + u64::from(random.next_u32() % 200));
        tokio::time::sleep(lives).await;
        dev.signal(Signal::KILL);
        while writers.join_next().await.is_some() {}
        drop(dev);
        dev = Dev::start(folder.path());
        check(&dev, &stack, &book).await;
        acknowledged += book.lock().unwrap().len();
    }
    println!("{ROUNDS} kills, {acknowledged} acknowledged tokens, none lost");
    assert!(
        acknowledged > 100,
        "too few to prove anything: {acknowledged}"
    );
    dev.signal(Signal::KILL);
    drop(dev);
    let store = folder.path().join(".stacktoken/stacktoken.db");
    assert_eq!(crate::support::database::integrity(&store).await, "ok");
}
