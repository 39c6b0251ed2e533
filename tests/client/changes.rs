//! Tests that the client returns the old answer for at most the freshness bound after a change is
//! acknowledged. Every kind of change is tested on both engines. On PostgreSQL the change is made
//! at one replica and the client watches the other.

use std::time::{Duration, Instant};

use stacktoken::{
    domain::verdict::ActionQuestion,
    grpc::pb::{admin::v1 as admin, v1},
};
use stacktoken_client::{Answer, Client, Question};

use crate::{
    cluster::Cluster,
    golden::client_of,
    proxy::{Link, Proxy},
    scripted::until,
    support::{
        self, TestServer, issue_request, now, permissions,
        requests::{
            Issued, UNTIL_FIRST_USE, overlap_for, permit_request, revoke_request, rotate_request,
            set_expiry_request,
        },
    },
};

pub const BOUND: Duration = Duration::from_secs(1);

/// Returns the number of revokes. Set STACKTOKEN_TEST_REVOKES to raise it when measuring the
/// figures in docs/reliability.md.
fn revokes() -> usize {
    std::env::var("STACKTOKEN_TEST_REVOKES").map_or(200, |count| count.parse().unwrap())
}

/// The clients that make changes, and the client under test, which watches for them.
struct ChangeFixture {
    owner: support::Client,
    operator: support::Client,
    client: Client,
    stack: String,
}

/// Creates a client of these replicas, and waits until its Watch stream is open.
pub async fn client_at(cluster: &Cluster, addresses: &[&str]) -> Client {
    use stacktoken::domain::clock::{Clock as _, SystemClock};
    let now = SystemClock::new().now().seconds();
    let mut builder = Client::builder(format!("http://{}", addresses[0]))
        .bearer(cluster.issuer.service("content-api", now));
    for address in &addresses[1..] {
        builder = builder.address(format!("http://{address}"));
    }
    let client = builder.build().unwrap();
    until("the client watches", || client.watch_fault().is_none()).await;
    client
}

impl ChangeFixture {
    async fn of(server: &TestServer) -> Self {
        server.set_limit(1000).await;
        Self {
            owner: server.owner().await,
            operator: server.operator().await,
            client: client_of(server).await,
            stack: server.stack.clone(),
        }
    }

    async fn across(cluster: &Cluster) -> Self {
        cluster.allow_tokens(1000).await;
        Self {
            owner: cluster.a.owner.clone(),
            operator: cluster.a.operator.clone(),
            client: client_at(cluster, &[&cluster.b.address]).await,
            stack: cluster.stack.clone(),
        }
    }

    async fn issue(&mut self, name: &str) -> Issued {
        let request = issue_request(&self.stack, name);
        self.owner
            .tokens
            .issue(request)
            .await
            .unwrap()
            .into_inner()
            .into()
    }

    /// Issues a token and waits until the client answers for it from its cache.
    async fn cached_token(&mut self, name: &str) -> Issued {
        let token = self.issue(name).await;
        self.fill_cache(&token.secret).await;
        token
    }

    async fn fill_cache(&self, secret: &str) {
        let question = Question::new(secret, &self.stack);
        let give_up = Instant::now() + Duration::from_secs(10);
        while !self
            .client
            .introspect(&question)
            .await
            .is_ok_and(|answer| answer.active() && answer.from_memory())
        {
            assert!(Instant::now() < give_up, "not cached in time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns how long, from now, the client still gives the old answer.
    async fn lasts(&self, secret: &str, is_as_before: impl Fn(&Answer) -> bool) -> Duration {
        let acknowledged = Instant::now();
        let actions = [ActionQuestion {
            name: "entry.create".into(),
            ..Default::default()
        }];
        let question = Question::new(secret, &self.stack).about(&actions);
        loop {
            let begun = acknowledged.elapsed();
            let answer = self.client.introspect(&question).await.unwrap();
            if !is_as_before(&answer) {
                return begun;
            }
            assert!(
                begun <= BOUND,
                "the old answer {begun:?} after the acknowledgement"
            );
            tokio::task::yield_now().await;
        }
    }

    async fn revokes_are_seen(mut self, engine: &str) {
        let mut seen = Vec::new();
        for at in 0..revokes() {
            let token = self.cached_token(&format!("token {at}")).await;
            let request = revoke_request(&self.stack, &token.uid, "");
            self.owner.tokens.revoke(request).await.unwrap();
            seen.push(self.lasts(&token.secret, Answer::active).await);
        }
        seen.sort();
        let percentile = |p: usize| seen[(seen.len() - 1) * p / 100];
        println!(
            "time until a revoke takes effect in the client's cache, {engine}, {} revokes: median {:?}, p99 {:?}, max {:?}",
            seen.len(),
            percentile(50),
            percentile(99),
            percentile(100)
        );
    }

    async fn every_kind_is_seen(mut self) {
        let stack = self.stack.clone();
        // The expiry is set to now.
        let token = self.cached_token("expires").await;
        let request = set_expiry_request(&stack, &token.uid, now());
        self.owner.tokens.set_expiry(request).await.unwrap();
        self.lasts(&token.secret, Answer::active).await;
        // Permissions are removed.
        let token = self.cached_token("narrowed").await;
        let less = permit_request(&stack, &token.uid, permissions(v1::Access::Read));
        self.owner.tokens.update(less).await.unwrap();
        self.lasts(&token.secret, Answer::allowed).await;
        // Permissions are added.
        self.fill_cache(&token.secret).await;
        let more = permit_request(&stack, &token.uid, permissions(v1::Access::ReadWrite));
        self.owner.tokens.update(more).await.unwrap();
        self.lasts(&token.secret, |answer| !answer.allowed()).await;
        // The token is rotated without an overlap.
        let token = self.cached_token("replaced").await;
        let request = rotate_request(&stack, &token.uid, overlap_for(0));
        self.owner.tokens.rotate(request).await.unwrap();
        self.lasts(&token.secret, Answer::active).await;
        // The token is rotated until first use, and the client uses the new secret.
        let token = self.cached_token("handed over").await;
        let request = rotate_request(&stack, &token.uid, UNTIL_FIRST_USE);
        let rotated = self
            .owner
            .tokens
            .rotate(request)
            .await
            .unwrap()
            .into_inner();
        self.fill_cache(&token.secret).await;
        self.fill_cache(&rotated.secret).await;
        self.lasts(&token.secret, Answer::active).await;
        // The whole stack is suspended, then resumed.
        let token = self.cached_token("stands").await;
        let suspend = admin::SuspendRequest {
            validate_only: false,
            stack_api_key: stack.clone(),
            reason: String::new(),
        };
        self.operator.stacks.suspend(suspend).await.unwrap();
        self.lasts(&token.secret, Answer::active).await;
        let resume = admin::ResumeRequest {
            validate_only: false,
            stack_api_key: stack.clone(),
            reason: String::new(),
        };
        self.operator.stacks.resume(resume).await.unwrap();
        self.fill_cache(&token.secret).await;
        let remove = admin::RemoveRequest {
            validate_only: false,
            stack_api_key: stack.clone(),
            reason: String::new(),
        };
        self.operator.stacks.remove(remove).await.unwrap();
        self.lasts(&token.secret, Answer::active).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_reaches_the_clients_cache_within_the_bound() {
    let server = TestServer::start().await;
    ChangeFixture::of(&server)
        .await
        .revokes_are_seen("SQLite")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoke_at_one_replica_reaches_the_cache_of_a_client_of_another() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let world = ChangeFixture::across(&cluster).await;
    world.revokes_are_seen("two PostgreSQL replicas").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_reaches_the_clients_cache_within_the_bound() {
    let server = TestServer::start().await;
    ChangeFixture::of(&server).await.every_kind_is_seen().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_at_one_replica_is_seen_by_a_client_of_another() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    ChangeFixture::across(&cluster)
        .await
        .every_kind_is_seen()
        .await;
}

/// The stream is open at one replica. Questions go to the other replica, whose poller has just lost
/// the database but still considers its cache fresh. Its answers lag behind the changes sent on the
/// stream, so the client must not cache them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_lagging_replica_is_not_cached() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let port = |address: &str| address.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port(&cluster.a.address)).await;
    let client = client_at(&cluster, &[&format!("127.0.0.1:{}", proxy.port)]).await;
    // The client opens its connection for questions with its first question, so this connection
    // leads to B.
    proxy.point_to(port(&cluster.b.address));
    let before = cluster.b.metric("stacktoken_cache_misses_total").await;
    for at in 0..5 {
        let token = cluster.issue(&format!("token {at}")).await;
        cluster.b.warm(&cluster.stack, &token.secret).await;
        let question = Question::new(&token.secret, &cluster.stack);
        assert!(client.introspect(&question).await.unwrap().active());
        until("it is cached", || client.cached(&question).is_some()).await;
        let uid = token.token.unwrap().token_uid;
        cluster.b.control_link.set(Link::BlackHole);
        cluster.revoke(&uid).await.unwrap();
        let acknowledged = Instant::now();
        while acknowledged.elapsed() < BOUND * 3 / 2 {
            let begun = acknowledged.elapsed();
            let answer = client.introspect(&question).await;
            let active = answer.is_ok_and(|answer| answer.active());
            assert!(!active || begun <= BOUND, "active after {begun:?}");
            assert!(client.cached(&question).is_none() || begun <= BOUND / 2);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.b.control_link.set(Link::Cut);
        cluster.b.control_link.set(Link::Up);
    }
    let after = cluster.b.metric("stacktoken_cache_misses_total").await;
    assert!(
        after > before,
        "no question caused a cache miss at the other replica"
    );
}
