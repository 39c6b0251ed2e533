//! Tests previews (`validate_only`): they return the effect of a change and leave no trace.

mod impact;
mod quiet;

use std::time::Duration;

use prost_reflect::Kind;
use stacktoken::auth::policy::RULES;
use tonic::transport::Channel;

use crate::support::{
    TestServer,
    database::DirectConnection,
    previews::{InspectTables, Rehearsal},
    raw::{TestCaller, methods, path_of},
};

/// RPCs without a preview. The comment of each in the contract states the reason.
const WITHOUT: [&str; 3] = [
    "/stacktoken.v1.LeakService/ReportLeaked",
    "/stacktoken.v1.ExchangeService/Exchange",
    "/stacktoken.v1.ExchangeService/EndSession",
];

/// A server with a second connection to its database.
struct InspectedServer {
    server: TestServer,
    outside: DirectConnection,
}

impl InspectedServer {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let outside = server.outside().await;
        Self { server, outside }
    }
}

impl InspectTables for InspectedServer {
    const EXACT: bool = true;

    async fn channel(&self) -> Channel {
        self.server.channel().await
    }

    fn jwt(&self, part: TestCaller) -> String {
        part.jwt(&self.server)
    }

    async fn dump(&self) -> String {
        self.outside.dump().await
    }

    fn seconds(&self) -> i64 {
        self.server.clock.seconds()
    }

    fn pass(&self, seconds: u64) {
        self.server.clock.advance(Duration::from_secs(seconds));
    }
}

#[test]
fn every_change_can_be_previewed_and_nothing_else() {
    for method in methods() {
        let path = path_of(&method);
        let rule = RULES.iter().find(|rule| rule.path == path).unwrap();
        let field = method.input().get_field_by_name("validate_only");
        let can = field.is_some_and(|field| field.kind() == Kind::Bool);
        let should = rule.changes && !WITHOUT.contains(&path.as_str());
        assert_eq!(can, should, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_the_future_token_and_changes_no_row() {
    let world = InspectedServer::start().await;
    Rehearsal::of(&world).await.life_of_a_token().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_refused_for_what_the_change_is() {
    let world = InspectedServer::start().await;
    Rehearsal::of(&world).await.refusals_of_tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_does_not_use_up_a_request_id() {
    let world = InspectedServer::start().await;
    Rehearsal::of(&world).await.repetitions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_shows_the_future_stack_and_changes_no_row() {
    let world = InspectedServer::start().await;
    let rehearsal = Rehearsal::of(&world).await;
    rehearsal.life_of_a_stack("blt0123456789abcdef").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_match_their_previews() {
    let world = InspectedServer::start().await;
    let rehearsal = Rehearsal::of(&world).await;
    let mut seen = std::collections::BTreeMap::new();
    for seed in 1..=4 {
        for ended in rehearsal.walk(seed, 100).await {
            *seen.entry(ended).or_insert(0) += 1;
        }
    }
    for expected in [
        "OK",
        "NAME_TAKEN",
        "REQUEST_ID_REUSED",
        "ROLE_REQUIRED",
        "STACK_SUSPENDED",
        "TOKEN_EXPIRED",
        "TOKEN_LIMIT_REACHED",
        "TOKEN_NOT_FOUND",
        "TOKEN_REVOKED",
    ] {
        assert!(seen.contains_key(expected), "{expected} is not in {seen:?}");
    }
    assert!(seen["OK"] > 100, "{seen:?}");
}
