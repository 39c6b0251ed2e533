//! Tests that faults between a replica and the database cause no wrong answer. A call that begins
//! later than the bound after an acknowledged revoke never gets an active answer, and a live token
//! never gets an inactive one. Calls get UNAVAILABLE instead, and recover soon after the fault.
//! Each safeguard has a control: without the safeguard, the same check fails.

use std::time::{Duration, Instant};

use stacktoken::{app::Safeguards, config::Tuning, grpc::pb::v1::IntrospectResponse};
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::{
    cluster::{Cluster, DATABASE},
    control::{assert_shows, assert_shows_with},
    proxy::Link,
    support::reason,
};

const BOUND: Duration = Duration::from_secs(1);
/// Questions must be answered again within this time after the database has recovered.
const RECOVERY: Duration = Duration::from_secs(3);

/// The answers of a replica during a fault.
#[derive(Debug, Default)]
struct FaultAnswers {
    /// Active answers about the revoked token, to calls that began later than the bound.
    stale: usize,
    /// Inactive answers about the live token.
    wrong: usize,
    /// The reasons of calls that were refused.
    refused: Vec<String>,
    /// How many answers there were in all.
    answers: usize,
}

impl FaultAnswers {
    fn assert_clean(&self) {
        assert_eq!((self.stale, self.wrong), (0, 0), "{self:?}");
        for reason in &self.refused {
            assert!(
                ["NOT_FRESH", "STORE_UNAVAILABLE", "DEADLINE"].contains(&reason.as_str()),
                "{self:?}"
            );
        }
    }
}

/// A live token and a token that was revoked at A. B has cached both of them before the revoke.
struct TokenPair {
    live: String,
    dead: String,
    revoked: Instant,
}

impl TokenPair {
    /// Makes B cache two tokens, and revokes one of them at A. `just_before` is called right before
    /// the revoke.
    async fn start(cluster: &Cluster, name: &str, just_before: impl FnOnce()) -> Self {
        let live = cluster.issue(&format!("{name} live")).await.secret;
        let dead = cluster.issue(&format!("{name} dead")).await;
        cluster.b.warm(&cluster.stack, &live).await;
        cluster.b.warm(&cluster.stack, &dead.secret).await;
        just_before();
        cluster
            .revoke(&dead.token.unwrap().token_uid)
            .await
            .unwrap();
        Self {
            live,
            dead: dead.secret,
            revoked: Instant::now(),
        }
    }

    /// Asks B about both tokens for this long.
    async fn observe(&self, cluster: &Cluster, during: Duration) -> FaultAnswers {
        let mut observed = FaultAnswers::default();
        let until = Instant::now() + during;
        while Instant::now() < until {
            let begun = Instant::now();
            match cluster.b.introspect(&cluster.stack, &self.dead).await {
                Ok(answer) => {
                    observed.answers += 1;
                    observed.stale += usize::from(answer.active && begun > self.revoked + BOUND);
                }
                Err(status) => observed.note(&status),
            }
            match cluster.b.introspect(&cluster.stack, &self.live).await {
                Ok(answer) => {
                    observed.answers += 1;
                    observed.wrong += usize::from(!answer.active);
                }
                Err(status) => observed.note(&status),
            }
            sleep(Duration::from_millis(5)).await;
        }
        observed
    }

    /// Returns how long, from now, it takes until B answers correctly about both tokens.
    async fn recovery(&self, cluster: &Cluster) -> Duration {
        let begun = Instant::now();
        loop {
            let asked = Instant::now();
            let dead = cluster.b.introspect(&cluster.stack, &self.dead).await;
            let live = cluster.b.introspect(&cluster.stack, &self.live).await;
            if let (Ok(dead), Ok(live)) = (&dead, &live) {
                assert!(live.active, "{live:?}");
                if !dead.active {
                    return begun.elapsed();
                }
                assert!(asked <= self.revoked + BOUND, "{dead:?}");
            }
            assert!(
                begun.elapsed() < 4 * RECOVERY,
                "no recovery: {dead:?} {live:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl FaultAnswers {
    fn note(&mut self, status: &tonic::Status) {
        assert!(
            matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            "{status:?}"
        );
        let reason = reason(status);
        if !self.refused.contains(&reason) {
            self.refused.push(reason);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_listener_costs_no_answer_and_no_freshness() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.allow_tokens(1000).await;
    for round in 0..5 {
        let watched = TokenPair::start(&cluster, &format!("round {round}"), || {
            let listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";
            assert_ne!(cluster.postgres.run(DATABASE, listeners), "0", "no session listens");
        })
        .await;
        let observed = watched.observe(&cluster, Duration::from_millis(1500)).await;
        observed.assert_clean();
        assert!(observed.refused.is_empty(), "{observed:?}");
        // Wait until B listens again, so that in the next round there is a session to terminate.
        sleep(Duration::from_millis(1200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_a_replica_refuses_rather_than_errs() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let watched = TokenPair::start(&cluster, "hole", || cluster.b.links(Link::BlackHole)).await;
    let observed = watched.observe(&cluster, Duration::from_secs(4)).await;
    observed.assert_clean();
    assert!(!observed.refused.is_empty(), "{observed:?}");
    cluster.b.links(Link::Up);
    let recovery = watched.recovery(&cluster).await;
    assert!(recovery <= RECOVERY, "{recovery:?}");
    println!("black hole: {observed:?}, recovery {recovery:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lease_a_black_hole_shows_stale_answers() {
    let without = Safeguards {
        lease: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        let watched = TokenPair::start(cluster, "hole", || cluster.b.links(Link::BlackHole)).await;
        let observed = watched.observe(cluster, Duration::from_secs(3)).await;
        observed.stale > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_cut_link_a_replica_refuses_rather_than_errs() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let watched = TokenPair::start(&cluster, "cut", || cluster.b.links(Link::Cut)).await;
    let observed = watched.observe(&cluster, Duration::from_secs(3)).await;
    observed.assert_clean();
    assert!(!observed.refused.is_empty(), "{observed:?}");
    cluster.b.links(Link::Up);
    let recovery = watched.recovery(&cluster).await;
    assert!(recovery <= RECOVERY, "{recovery:?}");
    println!("cut link: {observed:?}, recovery {recovery:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_only_the_feed_gone_the_store_is_read_under_the_same_bound() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    // Without its control connection, B cannot commit a heartbeat either. So B cannot know whether
    // the database that still answers is the primary.
    let hole = || cluster.b.control_link.set(Link::BlackHole);
    let watched = TokenPair::start(&cluster, "feed", hole).await;
    let observed = watched.observe(&cluster, Duration::from_secs(3)).await;
    observed.assert_clean();
    cluster.b.links(Link::Up);
    assert!(watched.recovery(&cluster).await <= RECOVERY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_frozen_nothing_wrong_is_answered() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let watched = TokenPair::start(&cluster, "frozen", || {}).await;
    cluster.postgres.freeze(true);
    let observed = watched.observe(&cluster, Duration::from_secs(4)).await;
    cluster.postgres.freeze(false);
    observed.assert_clean();
    assert!(!observed.refused.is_empty(), "{observed:?}");
    let recovery = watched.recovery(&cluster).await;
    assert!(recovery <= RECOVERY, "{recovery:?}");
    println!("frozen: {observed:?}, recovery {recovery:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn across_a_crash_of_the_database_nothing_acknowledged_is_lost() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    for round in 0..3 {
        let watched = TokenPair::start(&cluster, &format!("crash {round}"), || {}).await;
        cluster.postgres.restart();
        let recovery = watched.recovery(&cluster).await;
        assert!(recovery <= RECOVERY, "{recovery:?}");
        println!("crash: recovery {recovery:?} after the database accepts connections again");
        watched
            .observe(&cluster, Duration::from_millis(500))
            .await
            .assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_primary_is_not_believed() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let watched = TokenPair::start(&cluster, "demoted", || {}).await;
    let set = |value| {
        cluster.postgres.run(
            DATABASE,
            &format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
        );
        cluster.postgres.run(DATABASE, "SELECT pg_reload_conf()");
    };
    set("on");
    sleep(BOUND + Duration::from_millis(500)).await;
    let observed = watched.observe(&cluster, Duration::from_secs(1)).await;
    observed.assert_clean();
    assert_eq!(observed.answers, 0, "{observed:?}");
    set("off");
    assert!(watched.recovery(&cluster).await <= RECOVERY);
}

/// Cuts the primary off from its synchronous standby, and asks B after the bound has passed. Reads
/// still work, but commits wait for a standby that is gone, for example because it was promoted
/// elsewhere.
async fn fence(cluster: &Cluster) -> (TokenPair, FaultAnswers) {
    let watched = TokenPair::start(cluster, "fenced", || {}).await;
    cluster.postgres.run(
        DATABASE,
        "ALTER SYSTEM SET synchronous_standby_names = 'elsewhere'",
    );
    cluster.postgres.run(DATABASE, "SELECT pg_reload_conf()");
    sleep(BOUND + Duration::from_millis(500)).await;
    let observed = watched.observe(cluster, Duration::from_secs(2)).await;
    (watched, observed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_cut_off_from_its_synchronous_standby_is_not_believed() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (watched, observed) = fence(&cluster).await;
    observed.assert_clean();
    assert_eq!(observed.answers, 0, "{observed:?}");
    cluster
        .postgres
        .run(DATABASE, "ALTER SYSTEM RESET synchronous_standby_names");
    cluster.postgres.run(DATABASE, "SELECT pg_reload_conf()");
    assert!(watched.recovery(&cluster).await <= RECOVERY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_heartbeat_a_primary_that_was_cut_off_is_believed() {
    let without = Safeguards {
        heartbeat: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| fence(cluster).await.1.answers > 0).await;
}

/// Pauses B between its lookup of a token and its answer, and revokes the token at A during the
/// pause. Returns whether B answers "active" later than the bound after the revoke.
async fn answer_after_a_pause(cluster: &Cluster) -> bool {
    let issued = cluster.issue("paused").await;
    // A records the first use, so that B needs nothing but a lookup.
    cluster.a.warm(&cluster.stack, &issued.secret).await;
    cluster.b.connect(&cluster.stack).await;
    cluster.b.link.set(Link::Slow(Duration::from_millis(400)));
    let asked = ask_b_meanwhile(cluster, &issued.secret);
    sleep(Duration::from_millis(150)).await;
    cluster
        .revoke(&issued.token.unwrap().token_uid)
        .await
        .unwrap();
    cluster.b.clock.pause_for(2 * BOUND);
    cluster.b.link.set(Link::Up);
    // B may refuse the call, but must not answer with what was true before the pause.
    asked
        .await
        .unwrap()
        .is_ok_and(|answer| answer.into_inner().active)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_before_a_pause_is_not_answered_after_it() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    assert!(!answer_after_a_pause(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_age_check_a_lookup_from_before_a_pause_is_answered() {
    let without = Safeguards {
        reading_age: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| answer_after_a_pause(cluster).await).await;
}

/// Asks B with the `min_revision` of a revoke that B has not applied yet. Returns whether B answers
/// "active".
async fn ask_for_the_revision_of_a_revoke(cluster: &Cluster) -> bool {
    let issued = cluster.issue("named").await;
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    cluster
        .b
        .control_link
        .set(Link::Slow(Duration::from_millis(500)));
    let uid = issued.token.unwrap().token_uid;
    let revoked = cluster.revoke(&uid).await.unwrap();
    let answer = cluster
        .b
        .introspect_since(&cluster.stack, &issued.secret, &revoked.revision)
        .await;
    cluster.b.control_link.set(Link::Up);
    answer.unwrap().active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_entry_that_does_not_reflect_the_requested_revision_is_not_used() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    assert!(!ask_for_the_revision_of_a_revoke(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_reflection_check_a_revoked_token_is_active() {
    let without = Safeguards {
        reflection: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        ask_for_the_revision_of_a_revoke(cluster).await
    })
    .await;
}

/// Commits a change with a lower number after one with a higher number, because its transaction
/// began first. Returns the secret of the token that the later commit has revoked, and when it was
/// committed.
async fn commit_in_reverse_order(cluster: &Cluster) -> (String, Instant) {
    let late = cluster.issue("late").await;
    let early = cluster.issue("early").await;
    let uid = late.token.unwrap().token_uid;
    cluster.b.warm(&cluster.stack, &late.secret).await;
    let held = cluster.postgres.hold(
        DATABASE,
        &format!(
            "UPDATE tokens SET revoked_at = 1, revoked_by_kind = 'USER', revoked_by_issuer = 'x', \
             revoked_by_subject = 'x' WHERE uid = '{uid}'; \
             INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
             SELECT stack_uid, uid, 'revoked', 1 FROM tokens WHERE uid = '{uid}'"
        ),
    );
    cluster
        .revoke(&early.token.unwrap().token_uid)
        .await
        .unwrap();
    // By now B has applied the change with the higher number.
    sleep(Duration::from_millis(600)).await;
    held.commit();
    (late.secret, Instant::now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_committed_after_a_later_one_is_not_lost() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (secret, committed) = commit_in_reverse_order(&cluster).await;
    while cluster
        .b
        .introspect(&cluster.stack, &secret)
        .await
        .unwrap()
        .active
    {
        assert!(committed.elapsed() <= BOUND, "active past the bound");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_the_change_log_by_number_alone_loses_a_change() {
    let without = Safeguards {
        commit_order: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        let (secret, committed) = commit_in_reverse_order(cluster).await;
        while committed.elapsed() <= BOUND + Duration::from_millis(500) {
            sleep(Duration::from_millis(50)).await;
        }
        let answer = cluster.b.introspect(&cluster.stack, &secret).await;
        answer.unwrap().active
    })
    .await;
}

/// Introspects a secret at B while the test continues.
fn ask_b_meanwhile(
    cluster: &Cluster,
    secret: &str,
) -> JoinHandle<Result<tonic::Response<IntrospectResponse>, tonic::Status>> {
    let request = crate::support::introspect_request(&cluster.stack, secret, &[]);
    let mut service = cluster.b.service.clone();
    tokio::spawn(async move { service.introspection.introspect(request).await })
}

/// The freshness bound of tests that delay a lookup on purpose. It is much longer than the delay, so
/// that B does not refuse the lookup because a busy machine delays it further.
const LONG_BOUND: Duration = Duration::from_secs(4);

fn long_bound(tuning: &mut Tuning) {
    tuning.freshness_bound = LONG_BOUND;
}

/// Revokes a token at A while B's lookup of it is slow, so that B applies the revoke before it gets
/// the result of the lookup. Returns whether B still answers "active" well after the bound.
async fn fill_cache_late(cluster: &Cluster) -> bool {
    let issued = cluster.issue("raced").await;
    // A records the first use, so that B needs nothing but a lookup.
    cluster.a.warm(&cluster.stack, &issued.secret).await;
    cluster.b.connect(&cluster.stack).await;
    cluster.b.link.set(Link::Slow(Duration::from_millis(400)));
    let asked = ask_b_meanwhile(cluster, &issued.secret);
    sleep(Duration::from_millis(150)).await;
    cluster
        .revoke(&issued.token.unwrap().token_uid)
        .await
        .unwrap();
    let revoked = Instant::now();
    // This call began before the revoke, so either verdict is right.
    asked.await.unwrap().unwrap();
    cluster.b.link.set(Link::Up);
    let waited = revoked.elapsed();
    sleep((LONG_BOUND + Duration::from_millis(100)).saturating_sub(waited)).await;
    cluster
        .b
        .introspect(&cluster.stack, &issued.secret)
        .await
        .unwrap()
        .active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_fill_does_not_bring_back_what_was_revoked() {
    let Some(cluster) = Cluster::start_with(long_bound, Safeguards::default()).await else {
        return;
    };
    assert!(!fill_cache_late(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_generations_a_late_fill_brings_it_back() {
    let without = Safeguards {
        generations: false,
        ..Safeguards::default()
    };
    assert_shows_with(long_bound, without, async |cluster| {
        fill_cache_late(cluster).await
    })
    .await;
}

/// Asks B about a token after B has applied its revoke, while a lookup that started earlier is
/// still in progress.
async fn share_a_flight(cluster: &Cluster) -> bool {
    let issued = cluster.issue("shared").await;
    // A records the first use, so that B needs nothing but a lookup.
    cluster.a.warm(&cluster.stack, &issued.secret).await;
    cluster.b.connect(&cluster.stack).await;
    let heard = cluster.b.metric("stacktoken_cache_evictions_total").await;
    cluster.b.link.set(Link::Slow(Duration::from_millis(600)));
    let asked = ask_b_meanwhile(cluster, &issued.secret);
    sleep(Duration::from_millis(100)).await;
    cluster
        .revoke(&issued.token.unwrap().token_uid)
        .await
        .unwrap();
    while cluster.b.metric("stacktoken_cache_evictions_total").await <= heard {
        sleep(Duration::from_millis(2)).await;
    }
    let answer = cluster.b.introspect(&cluster.stack, &issued.secret).await;
    asked.await.unwrap().unwrap();
    cluster.b.link.set(Link::Up);
    answer.unwrap().active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_from_before_a_revoke_is_not_shared_after_it() {
    let Some(cluster) = Cluster::start_with(long_bound, Safeguards::default()).await else {
        return;
    };
    assert!(!share_a_flight(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_start_check_an_older_lookup_is_shared() {
    let without = Safeguards {
        flights: false,
        ..Safeguards::default()
    };
    assert_shows_with(long_bound, without, async |cluster| {
        share_a_flight(cluster).await
    })
    .await;
}

/// Revokes tokens at A and asks A at once. Returns how often A still answered "active".
async fn ask_where_it_was_revoked(cluster: &Cluster) -> usize {
    cluster.allow_tokens(1000).await;
    // A's poller reads A's own changes too, but later. The slow link prevents the poller from
    // evicting the token before A is asked.
    cluster
        .a
        .control_link
        .set(Link::Slow(Duration::from_millis(100)));
    let mut stale = 0;
    for round in 0..30 {
        let issued = cluster.issue(&format!("own {round}")).await;
        cluster.a.warm(&cluster.stack, &issued.secret).await;
        cluster
            .revoke(&issued.token.unwrap().token_uid)
            .await
            .unwrap();
        let answer = cluster.a.introspect(&cluster.stack, &issued.secret).await;
        stale += usize::from(answer.unwrap().active);
    }
    stale
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_revoked_says_so_at_once() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    assert_eq!(ask_where_it_was_revoked(&cluster).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_applying_its_own_changes_it_does_not() {
    let without = Safeguards {
        own_changes: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        ask_where_it_was_revoked(cluster).await > 0
    })
    .await;
}

/// Watches the health of a service at B.
pub async fn health_at_b(
    cluster: &Cluster,
    service: &str,
) -> tonic::Streaming<HealthCheckResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.b.address)).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    client.watch(request).await.unwrap().into_inner()
}

pub async fn next_event(
    stream: &mut tonic::Streaming<HealthCheckResponse>,
    expected: ServingStatus,
) -> Duration {
    let begun = Instant::now();
    while stream.message().await.unwrap().unwrap().status() != expected {}
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_lost_and_regained_freshness_within_two_seconds() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    for service in [
        "stacktoken.v1.IntrospectionService",
        "stacktoken.v1.TokenService",
        "",
    ] {
        let mut health = health_at_b(&cluster, service).await;
        next_event(&mut health, ServingStatus::Serving).await;
        cluster.b.links(Link::Cut);
        let lost = next_event(&mut health, ServingStatus::NotServing).await;
        cluster.b.links(Link::Up);
        let regained = next_event(&mut health, ServingStatus::Serving).await;
        println!("health of {service:?}: lost {lost:?}, regained {regained:?}");
        // The lease lapses when the freshness bound has passed after the link was cut.
        assert!(
            lost <= BOUND + Duration::from_secs(2),
            "{service}: {lost:?}"
        );
        assert!(
            regained <= Duration::from_secs(2),
            "{service}: {regained:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_choose_stale_answers_for_a_while() {
    let set = |tuning: &mut Tuning| tuning.serve_stale_for = Duration::from_secs(3);
    let Some(cluster) = Cluster::start_with(set, Safeguards::default()).await else {
        return;
    };
    let live = cluster.issue("stale").await.secret;
    cluster.b.warm(&cluster.stack, &live).await;
    let mut health = health_at_b(&cluster, "stacktoken.v1.IntrospectionService").await;
    next_event(&mut health, ServingStatus::Serving).await;
    cluster.b.links(Link::Cut);
    let cut = Instant::now();
    while cut.elapsed() < Duration::from_millis(3500) {
        assert!(
            cluster
                .b
                .introspect(&cluster.stack, &live)
                .await
                .unwrap()
                .active
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.b.metric("stacktoken_stale_answers_total").await > 0.0);
    next_event(&mut health, ServingStatus::NotServing).await;
    assert!(
        cut.elapsed() >= Duration::from_secs(3),
        "NOT_SERVING too early"
    );
    let status = cluster
        .b
        .introspect(&cluster.stack, &live)
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NOT_FRESH");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_of_another_epoch_or_of_the_future_is_refused() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let issued = cluster.issue("revisions").await;
    let (epoch, position) = issued.revision.split_at(16);
    let future = format!(
        "{epoch}{:x}",
        i64::from_str_radix(position, 16).unwrap() + 1_000_000
    );
    let elsewhere = format!(
        "{:016x}{position}",
        u64::from_str_radix(epoch, 16).unwrap() ^ 1
    );
    for revision in [future, elsewhere] {
        let asked = cluster
            .b
            .introspect_since(&cluster.stack, &issued.secret, &revision)
            .await;
        let status = asked.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::OutOfRange, "REVISION_UNKNOWN")
        );
    }
    let known = cluster
        .b
        .introspect_since(&cluster.stack, &issued.secret, &issued.revision)
        .await;
    assert!(known.unwrap().active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_pile_up_do_not_slow_cache_hits() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let live = cluster.issue("hit").await.secret;
    cluster.b.warm(&cluster.stack, &live).await;
    // An open transaction locks the row of the stack, so every change to the stack waits.
    let sql = format!(
        "UPDATE stacks SET name = name WHERE key = '{}'",
        cluster.stack
    );
    let held = cluster.postgres.hold(DATABASE, &sql);
    let writers: Vec<_> = (0..64)
        .map(|at| {
            let (mut owner, request) = (
                cluster.b.owner.clone(),
                crate::support::issue_request(&cluster.stack, &format!("waiting {at}")),
            );
            tokio::spawn(async move { owner.tokens.issue(request).await })
        })
        .collect();
    sleep(Duration::from_millis(300)).await;
    let misses = cluster.b.metric("stacktoken_cache_misses_total").await;
    for _ in 0..200 {
        assert!(
            cluster
                .b
                .introspect(&cluster.stack, &live)
                .await
                .unwrap()
                .active
        );
    }
    assert_eq!(
        cluster.b.metric("stacktoken_cache_misses_total").await,
        misses,
        "answered from the store, not from the cache"
    );
    held.commit();
    for writer in writers {
        // A change that has waited too long is refused with a reason. Every call is answered.
        if let Err(status) = writer.await.unwrap() {
            let told = reason(&status);
            let known =
                ["TOKEN_LIMIT_REACHED", "STORE_UNAVAILABLE", "DEADLINE"].contains(&told.as_str());
            assert!(known, "{status:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_hits_end_at_the_configured_freshness_bound() {
    let bound = Duration::from_secs(4);
    let set = |tuning: &mut Tuning| tuning.freshness_bound = bound;
    let Some(cluster) = Cluster::start_with(set, Safeguards::default()).await else {
        return;
    };
    let live = cluster.issue("live").await.secret;
    cluster.b.warm(&cluster.stack, &live).await;
    cluster.b.links(Link::Cut);
    let cut = Instant::now();
    // This is twice the default bound, but well within the configured one.
    while cut.elapsed() < 2 * BOUND {
        let answer = cluster.b.introspect(&cluster.stack, &live).await;
        assert!(answer.unwrap().active);
        sleep(Duration::from_millis(50)).await;
    }
    sleep((cut + bound + Duration::from_millis(100)).saturating_duration_since(Instant::now()))
        .await;
    let status = cluster
        .b
        .introspect(&cluster.stack, &live)
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "NOT_FRESH");
}
