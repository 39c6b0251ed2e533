//! Tests `serve` on a database that becomes read-only while the program runs.

use std::{collections::BTreeSet, process::Command, time::Duration};

use tonic::Code;

use crate::{
    database_down::{DATABASE, database, wait_for_log},
    postgres::Postgres,
    served::RunningServer,
    support::{database::eventually, issue_request, reason},
};

const CAUSE: &str = "is read-only: default_transaction_read_only is on";
const READ_ONLY: &str = "stacktoken_database_read_only";

/// Makes new sessions read-only or writable by `ALTER DATABASE`.
fn set_read_only(postgres: &Postgres, to: &str) {
    let set = format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = {to}");
    postgres.run("postgres", &set);
}

/// Sets a freshness bound that is long enough for a busy machine.
fn patiently(command: &mut Command) {
    command.args(["--freshness-bound", "10s"]);
}

const OURS: &str = "FROM pg_stat_activity WHERE application_name = 'stacktoken'";

/// Returns the pids of the sessions that the program has open.
fn sessions(postgres: &Postgres) -> BTreeSet<String> {
    let pids = postgres.run("postgres", &format!("SELECT pid {OURS}"));
    pids.lines().map(str::to_owned).collect()
}

fn end_sessions(postgres: &Postgres) {
    let end = format!("SELECT count(pg_terminate_backend(pid)) {OURS}");
    postgres.run("postgres", &end);
}

/// Returns how many sessions the database has had so far.
fn sessions_ever(postgres: &Postgres) -> i64 {
    let sql = format!("SELECT sessions FROM pg_stat_database WHERE datname = '{DATABASE}'");
    postgres.run("postgres", &sql).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_becomes_read_only_is_named_once_and_its_connections_are_kept() {
    let Some((postgres, url)) = database() else {
        return;
    };
    let served = RunningServer::start(&url, patiently);
    served.serves().await;
    let stack = served.register().await;
    let mut owner = served.user("owner").await;
    assert_eq!(served.counted(READ_ONLY).await, 0);
    set_read_only(&postgres, "on");
    end_sessions(&postgres);
    wait_for_log(&served, CAUSE).await;
    served.is_ready(false).await;
    assert_eq!(served.counted(READ_ONLY).await, 1);
    let request = issue_request(&stack, "refused");
    let refused = owner.tokens.issue(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(reason(&refused), "STORE_UNAVAILABLE");
    assert!(refused.message().contains("read-only"), "{refused:?}");
    let counted = "stacktoken_errors_total{reason=\"STORE_UNAVAILABLE\"}";
    assert!(served.counted(counted).await > 0);
    let (kept, before) = (sessions(&postgres), sessions_ever(&postgres));
    // This is long enough for several connections to be replaced, if failed changes did that.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        owner.tokens.issue(request.clone()).await.unwrap_err();
    }
    let (now, after) = (sessions(&postgres), sessions_ever(&postgres));
    assert!(
        !kept.is_empty() && now.is_superset(&kept),
        "{kept:?} {now:?}"
    );
    println!("new sessions in 5 s: {}", after - before);
    let log = served.log();
    assert_eq!(log.matches(CAUSE).count(), 1, "{log}");
    set_read_only(&postgres, "off");
    served.serves().await;
    owner.tokens.issue(request).await.unwrap();
    assert_eq!(served.counted(READ_ONLY).await, 0);
    let renewed = sessions(&postgres);
    assert!(renewed.is_disjoint(&kept), "{kept:?} {renewed:?}");
}

/// Existing sessions can still write, so heartbeats succeed, but new sessions cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_writable_only_by_older_sessions_counts_as_read_only() {
    let Some((postgres, url)) = database() else {
        return;
    };
    let served = RunningServer::start(&url, patiently);
    served.serves().await;
    let mut stacks = Vec::new();
    for _ in 0..4 {
        stacks.push(served.register().await);
    }
    let owner = served.user("owner").await;
    // Changes that wait for a lock keep their sessions, so other changes need new sessions.
    let lock = "DO $$ BEGIN PERFORM FROM stacks FOR UPDATE; END $$";
    let held = postgres.hold(DATABASE, lock);
    set_read_only(&postgres, "on");
    let mut issuing = tokio::task::JoinSet::new();
    for (at, stack) in stacks.iter().cycle().take(8).enumerate() {
        let (mut owner, request) = (owner.clone(), issue_request(stack, &format!("token {at}")));
        issuing.spawn(async move { owner.tokens.issue(request).await });
    }
    wait_for_log(&served, CAUSE).await;
    held.commit();
    let issued = issuing.join_all().await;
    let refused = issued.iter().filter_map(|issued| issued.as_ref().err());
    let refused = refused.filter(|status| status.message().contains("read-only"));
    let refused = refused.count();
    println!("{refused} of {} changes refused", issued.len());
    assert!(refused > 0);
    eventually("/readyz reports it", async || {
        let run_command = served.ready().await;
        run_command
            .contains("TokenService NOT_SERVING")
            .then_some(())
    })
    .await;
    let run_command = served.ready().await;
    assert!(
        run_command.contains("IntrospectionService SERVING"),
        "{run_command}"
    );
    set_read_only(&postgres, "off");
    served.serves().await;
    let (mut owner, request) = (owner, issue_request(&stacks[0], "taken"));
    owner.tokens.issue(request).await.unwrap();
}
