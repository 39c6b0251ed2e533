//! Changes that are only shown (`validate_only`): they tell what the change comes to, and
//! leave nothing behind.

mod impact;
mod quiet;

use std::time::Duration;

use prost_reflect::Kind;
use stacktoken::auth::policy::RULES;
use tonic::transport::Channel;

use crate::support::{
    TestServer,
    database::Outside,
    previews::{Rehearsal, World},
    raw::{Part, methods, path_of},
};

/// Changes that cannot be previewed, each for a reason that its comment tells.
const WITHOUT: [&str; 1] = ["/stacktoken.v1.TokenService/ReportLeaked"];

/// A server beside which somebody looks at its tables.
struct Observed {
    server: TestServer,
    outside: Outside,
}

impl Observed {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let outside = server.outside().await;
        Self { server, outside }
    }
}

impl World for Observed {
    const EXACT: bool = true;

    async fn channel(&self) -> Channel {
        self.server.channel().await
    }

    fn jwt(&self, part: Part) -> String {
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
async fn a_preview_tells_what_becomes_of_a_token_and_leaves_every_row() {
    let world = Observed::start().await;
    Rehearsal::of(&world).await.life_of_a_token().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_refused_for_what_the_change_is() {
    let world = Observed::start().await;
    Rehearsal::of(&world).await.refusals_of_tokens().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_does_not_use_up_a_request_id() {
    let world = Observed::start().await;
    Rehearsal::of(&world).await.repetitions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_tells_what_becomes_of_a_stack_and_leaves_every_row() {
    let world = Observed::start().await;
    let rehearsal = Rehearsal::of(&world).await;
    rehearsal.life_of_a_stack("blt0123456789abcdef").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_random_come_to_what_their_previews_told() {
    let world = Observed::start().await;
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
        assert!(seen.contains_key(expected), "never {expected}: {seen:?}");
    }
    assert!(seen["OK"] > 100, "{seen:?}");
}
