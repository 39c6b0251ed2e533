//! Tests that a change is made only in the database that committed the last heartbeat, only in its
//! own tables, and only if the database's clock agrees with the replica's. Also tests that a read
//! in this database sees every row. Each of these conditions can cease to hold between two
//! heartbeats.

use std::time::{Duration, Instant};

use stacktoken::{
    app::Safeguards,
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::v1,
    store::Error,
};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, DATABASE, Replica},
    control::assert_shows,
    origins::{open, point_to, revoke_soon},
    postgres::{self, Postgres},
    support::{
        at, issue_request, reason,
        requests::{revoke_request, set_expiry_request},
    },
};

/// Issues a token, as soon as the replica accepts changes again.
pub async fn issue_soon(cluster: &Cluster, request: v1::IssueRequest) -> v1::IssueResponse {
    let begun = Instant::now();
    loop {
        let mut tokens = cluster.a.owner.tokens.clone();
        match tokens.issue(request.clone()).await {
            Ok(issued) => return issued.into_inner(),
            Err(status) => assert!(begun.elapsed() < Duration::from_secs(10), "{status}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Revokes tokens while a restored dump has the address of the database. Returns how many revokes
/// were acknowledged, and how many of these are missing in the real database.
async fn revoke_beside_a_copy(cluster: &Cluster) -> (usize, usize) {
    let other = postgres::start_another_system().unwrap();
    let mut uids = Vec::new();
    for at in 0..5 {
        let issued = cluster.issue(&format!("live {at}")).await;
        uids.push(issued.token.unwrap().token_uid);
    }
    cluster.postgres.copy_to(&other, DATABASE);
    point_to(cluster, other.port()).await;
    let (mut acknowledged, begun) = (Vec::new(), Instant::now());
    for uid in uids.iter().cycle() {
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        if cluster.revoke(uid).await.is_ok() {
            acknowledged.push(uid);
        }
        sleep(Duration::from_millis(10)).await;
    }
    point_to(cluster, cluster.postgres.port()).await;
    acknowledged.sort();
    acknowledged.dedup();
    let lost = acknowledged.iter().filter(|uid| {
        let sql = format!("SELECT revoked_at IS NULL FROM tokens WHERE uid = '{uid}'");
        cluster.postgres.run(DATABASE, &sql).trim() == "t"
    });
    let (acknowledged, lost) = (acknowledged.len(), lost.count());
    println!("acknowledged by the copy: {acknowledged}, lost: {lost}");
    (acknowledged, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revoke_is_acknowledged_by_a_copy_that_stands_in_for_a_moment() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    assert_eq!(revoke_beside_a_copy(&cluster).await, (0, 0));
    // A revoke that reaches the real database succeeds.
    let issued = issue_soon(&cluster, issue_request(&cluster.stack, "afterwards")).await;
    cluster
        .revoke(&issued.token.unwrap().token_uid)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_origin_check_of_changes_revokes_are_lost() {
    let without = Safeguards {
        change_origins: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        revoke_beside_a_copy(cluster).await.1 > 0
    })
    .await;
}

/// Calls `Revoke` at a replica for two seconds. Returns how many calls were acknowledged.
async fn revoke_at(replica: &Replica, stack: &str, uid: &str) -> usize {
    let (mut acknowledged, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        let mut tokens = replica.owner.tokens.clone();
        let revoked = tokens.revoke(revoke_request(stack, uid, "")).await;
        acknowledged += usize::from(revoked.is_ok());
        sleep(Duration::from_millis(20)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_never_trusted_a_database_makes_no_change() {
    let other = postgres::start_another_system();
    let (Some(cluster), Some(other)) = (Cluster::start().await, other) else {
        return;
    };
    let uid = cluster.issue("live").await.token.unwrap().token_uid;
    cluster.postgres.copy_to(&other, DATABASE);
    // A dump of a standby may lack this row.
    other.run(DATABASE, "DELETE FROM incarnation");
    let replica = cluster.begin_on(&other).await;
    assert_eq!(revoke_at(&replica, &cluster.stack, &uid).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_without_its_incarnation_is_refused_at_the_start() {
    let other = postgres::start_another_system();
    let (Some(cluster), Some(other)) = (Cluster::start().await, other) else {
        return;
    };
    cluster.postgres.copy_to(&other, DATABASE);
    other.run(DATABASE, "DELETE FROM incarnation");
    let refused = open(&other).await.require_home().await;
    assert!(matches!(refused, Err(Error::Foreign)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stay_on_a_copy_are_replaced() {
    let other = postgres::start_another_system();
    let (Some(cluster), Some(other)) = (Cluster::start().await, other) else {
        return;
    };
    let uid = cluster.issue("live").await.token.unwrap().token_uid;
    cluster.postgres.copy_to(&other, DATABASE);
    point_to(&cluster, other.port()).await;
    sleep(Duration::from_secs(1)).await;
    // The address leads back to the real database, and no connection is cut.
    for replica in [&cluster.a, &cluster.b] {
        replica.link.point_to(cluster.postgres.port());
        replica.control_link.point_to(cluster.postgres.port());
    }
    let back = Instant::now();
    revoke_soon(&cluster, &uid).await;
    println!("changes are made again after {:?}", back.elapsed());
}

/// Replaces the database's clock with a function that adds an offset from a table. Sessions find
/// the function through the search path of the role.
fn make_clock(cluster: &Cluster) {
    let made = "CREATE SCHEMA wrong; CREATE TABLE wrong.ahead (by interval); \
        INSERT INTO wrong.ahead VALUES ('0'); \
        CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE \
        AS 'SELECT pg_catalog.clock_timestamp() + by FROM wrong.ahead'; \
        ALTER ROLE postgres SET search_path = wrong, pg_catalog, public";
    cluster.postgres.run(DATABASE, made);
}

fn set_clock_ahead(postgres: &Postgres, by: &str) {
    postgres.run(DATABASE, &format!("UPDATE wrong.ahead SET by = '{by}'"));
}

/// Closes the connections of both replicas, so that they start new sessions.
async fn reconnect(cluster: &Cluster) {
    point_to(cluster, cluster.postgres.port()).await;
}

/// Sets the database's clock one hour ahead for less than the time between two heartbeats, and
/// makes changes during this time. Returns whether this has ended a live token.
async fn change_while_the_clock_is_ahead(cluster: &Cluster) -> bool {
    make_clock(cluster);
    reconnect(cluster).await;
    let request = v1::IssueRequest {
        expiry: Some(at(SystemClock::new().now().seconds() + 1_800)),
        ..issue_request(&cluster.stack, "half an hour left")
    };
    let mut tokens = cluster.a.owner.tokens.clone();
    let issued = issue_soon(cluster, request).await;
    cluster.a.warm(&cluster.stack, &issued.secret).await;
    let uid = issued.token.unwrap().token_uid;
    set_clock_ahead(&cluster.postgres, "1 hour");
    let ahead = Instant::now();
    let later = at(SystemClock::new().now().seconds() + 3_000);
    while ahead.elapsed() < Duration::from_millis(200) {
        let change = set_expiry_request(&cluster.stack, &uid, later.clone());
        let _ = tokens.set_expiry(change).await;
    }
    set_clock_ahead(&cluster.postgres, "0");
    let sql = format!("SELECT ended_at IS NOT NULL FROM tokens WHERE uid = '{uid}'");
    cluster.postgres.run(DATABASE, &sql).trim() == "t"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_clock_that_steps_between_two_heartbeats_ends_no_token() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    assert!(!change_while_the_clock_is_ahead(&cluster).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_clock_check_of_changes_a_stepped_clock_ends_a_token() {
    let without = Safeguards {
        change_clocks: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        change_while_the_clock_is_ahead(cluster).await
    })
    .await;
}

/// Creates copies of all tables in a schema that comes first in the search path.
const SHADOWS: &str = "DO $$ DECLARE name text; BEGIN \
    CREATE SCHEMA shadows; \
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
    EXECUTE format('CREATE TABLE shadows.%1$I (LIKE public.%1$I INCLUDING ALL)', name); \
    EXECUTE format('INSERT INTO shadows.%1$I OVERRIDING SYSTEM VALUE SELECT * FROM public.%1$I', name); \
    END LOOP; END $$; \
    ALTER ROLE postgres SET search_path = shadows, public";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_the_same_names_in_another_schema_are_not_taken_for_the_own() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let revoked = cluster.issue("revoked").await;
    let live = cluster.issue("live").await.token.unwrap().token_uid;
    cluster.postgres.run(DATABASE, SHADOWS);
    let uid = revoked.token.unwrap().token_uid;
    cluster.revoke(&uid).await.unwrap();
    reconnect(&cluster).await;
    let (mut answered, mut acknowledged, begun) = (0, 0, Instant::now());
    while begun.elapsed() < Duration::from_secs(3) {
        for replica in [&cluster.a, &cluster.b] {
            let answer = replica.introspect(&cluster.stack, &revoked.secret).await;
            answered += usize::from(answer.is_ok_and(|answer| answer.active));
        }
        acknowledged += usize::from(cluster.revoke(&live).await.is_ok());
        sleep(Duration::from_millis(20)).await;
    }
    println!("active after the revoke: {answered}, changes acknowledged: {acknowledged}");
    assert_eq!((answered, acknowledged), (0, 0));
    // When the search path is restored, the replicas serve again.
    let mended = "ALTER ROLE postgres RESET search_path";
    cluster.postgres.run(DATABASE, mended);
    reconnect(&cluster).await;
    let mended = Instant::now();
    while cluster.revoke(&live).await.is_err() {
        assert!(
            mended.elapsed() < Duration::from_secs(10),
            "no recovery within 10 s"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_rewritten_hides_no_token_whatever_the_default_isolation() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let set = "ALTER ROLE postgres SET default_transaction_isolation = 'repeatable read'";
    cluster.postgres.run(DATABASE, set);
    reconnect(&cluster).await;
    let first = cluster.issue("first").await;
    cluster.b.warm(&cluster.stack, &first.secret).await;
    for at in 0..3 {
        // B has not looked up this token, so B has not cached it.
        let live = issue_soon(
            &cluster,
            issue_request(&cluster.stack, &format!("live {at}")),
        )
        .await;
        let rewrite =
            format!("ALTER TABLE token_secrets ADD COLUMN rewritten_{at} float DEFAULT random()");
        let held = cluster.postgres.hold(DATABASE, &rewrite);
        let asking = async {
            // B refuses calls after the bound, or answers once the table is unlocked.
            loop {
                match cluster.b.introspect(&cluster.stack, &live.secret).await {
                    Ok(answer) => break answer,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let rewriting = async {
            sleep(Duration::from_millis(400)).await;
            held.commit();
        };
        let (answer, ()) = tokio::join!(asking, rewriting);
        assert!(answer.active, "{:?}", answer.reason());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_clock_ahead_has_called_expired_stays_expired() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.b.clock.set_ahead(Duration::from_millis(1_800));
    let request = v1::IssueRequest {
        expiry: Some(at(SystemClock::new().now().seconds() + 5)),
        ..issue_request(&cluster.stack, "short")
    };
    let issued = cluster.a.owner.tokens.clone().issue(request).await;
    let issued = issued.unwrap().into_inner();
    cluster.b.warm(&cluster.stack, &issued.secret).await;
    loop {
        match cluster.b.introspect(&cluster.stack, &issued.secret).await {
            Ok(answer) if !answer.active => {
                assert_eq!(answer.reason(), v1::Reason::Expired);
                break;
            }
            // A call may be refused on a busy machine.
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
    let later = at(SystemClock::new().now().seconds() + 3_600);
    let uid = issued.token.unwrap().token_uid;
    let change = set_expiry_request(&cluster.stack, &uid, later);
    let changed = cluster.a.owner.tokens.clone().set_expiry(change).await;
    assert_eq!(reason(&changed.unwrap_err()), "TOKEN_EXPIRED");
}
