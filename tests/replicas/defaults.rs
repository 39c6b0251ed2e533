//! Tests that settings of the database, the role and the system do not change how the service
//! behaves.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tonic::Code;

use crate::{
    cluster::{Cluster, DATABASE},
    postgres::Postgres,
    support::{issue_request, reason},
};

/// Settings that an operator, a template or a cloud provider may have changed.
const ODD: &[&str] = &[
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "synchronous_commit = off",
    "synchronous_commit = local",
    "search_path = pg_catalog, public",
    "TimeZone = 'Pacific/Kiritimati'",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "standard_conforming_strings = off",
    "bytea_output = 'escape'",
    "lc_messages = 'C'",
    "client_min_messages = 'error'",
    "row_security = off",
    "enable_seqscan = off",
    // The settings in this list cause plan costs at which each statement would be compiled by JIT.
    "jit = off",
    "transform_null_equals = on",
    "default_tablespace = ''",
    "extra_float_digits = -15",
    "statement_timeout = '30min'",
    "idle_in_transaction_session_timeout = 0",
    "lock_timeout = 0",
];

/// The level at which a setting is changed.
#[derive(Clone, Copy, Debug)]
enum SettingScope {
    Role,
    Database,
    System,
}

fn set(postgres: &Postgres, place: SettingScope, setting: &str) {
    let sql = match place {
        SettingScope::Role => format!("ALTER ROLE postgres SET {setting}"),
        SettingScope::Database => format!("ALTER DATABASE {DATABASE} SET {setting}"),
        SettingScope::System => format!("ALTER SYSTEM SET {setting}"),
    };
    postgres.run("postgres", &sql);
    postgres.run("postgres", "SELECT pg_reload_conf()");
}

/// Sends 64 concurrent `Issue` calls for a new stack to two replicas. Asserts that exactly 10
/// succeed (R6).
async fn fill_a_stack(cluster: &Cluster, case: &str) {
    let stack = cluster.register().await;
    let issues = (0..64).map(|at| {
        let replica = if at % 2 == 0 { &cluster.a } else { &cluster.b };
        let (mut owner, request) = (
            replica.owner.clone(),
            issue_request(&stack, &format!("token {at}")),
        );
        async move { owner.tokens.issue(request).await }
    });
    let done = futures_util::future::join_all(issues).await;
    let (issued, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::ResourceExhausted, "TOKEN_LIMIT_REACHED"),
            "{case}: {status:?}"
        );
    }
    assert_eq!(issued.len(), 10, "{case}");
    let secret = issued[0].as_ref().unwrap().get_ref().secret.clone();
    let uid = issued[0].as_ref().unwrap().get_ref().token.clone();
    cluster.b.warm(&stack, &secret).await;
    let mut owner = cluster.a.owner.clone();
    let revoke = crate::support::requests::revoke_request(&stack, &uid.unwrap().token_uid, "");
    owner.tokens.revoke(revoke).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = cluster.b.introspect(&stack, &secret).await.unwrap();
    assert!(!answer.active, "{case}");
}

/// Terminates the service's sessions, which still use the former defaults.
pub fn end_sessions(postgres: &Postgres) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name = 'stacktoken'";
    postgres.run("postgres", sql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_defaults_change_neither_the_limit_nor_an_answer() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let isolation = "default_transaction_isolation";
    for (place, settings) in [
        (SettingScope::System, ODD),
        (
            SettingScope::Database,
            &[&format!("{isolation} = 'repeatable read'")[..]],
        ),
        (
            SettingScope::Role,
            &[&format!("{isolation} = 'read uncommitted'")[..]],
        ),
    ] {
        for setting in settings {
            set(&cluster.postgres, place, setting);
        }
        end_sessions(&cluster.postgres);
        cluster.allow_tokens_soon(10).await;
        fill_a_stack(&cluster, &format!("{place:?} {settings:?}")).await;
    }
}

/// An acknowledged change is on disk even if the database's default is `synchronous_commit = off`. The
/// test stops the WAL writer, so that only commits flush the WAL, and then PostgreSQL in immediate
/// mode, so that nothing else is flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_synchronous_commit_nothing_acknowledged_is_lost() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    for place in [
        SettingScope::System,
        SettingScope::Database,
        SettingScope::Role,
    ] {
        set(&cluster.postgres, place, "synchronous_commit = off");
        end_sessions(&cluster.postgres);
        cluster.allow_tokens_soon(1000).await;
        let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
        let pid: i32 = cluster.postgres.run("postgres", pid).parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let mut revoked = Vec::new();
        for at in 0..30 {
            let name = format!("{place:?} {at}");
            let uid = cluster.issue(&name).await.token.unwrap().token_uid;
            cluster.revoke(&uid).await.unwrap();
            revoked.push(uid);
        }
        // The server must get the signal for an immediate shutdown before the WAL writer continues,
        // or the WAL writer would flush the log.
        let going_on = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            let _ = kill_process(pid, Signal::CONT);
        });
        cluster.postgres.restart();
        going_on.join().unwrap();
        for uid in revoked {
            let sql = format!("SELECT revoked_at IS NOT NULL FROM tokens WHERE uid = '{uid}'");
            assert_eq!(
                cluster.postgres.run(DATABASE, &sql),
                "t",
                "{place:?}: {uid}"
            );
        }
    }
}

impl Cluster {
    /// Like `allow_tokens`, but retries until the replica has connections again.
    pub async fn allow_tokens_soon(&self, max: i32) {
        let request = stacktoken::grpc::pb::admin::v1::SetTokenLimitRequest {
            stack_api_key: self.stack.clone(),
            max_tokens: Some(max),
            reason: "a test needs many".into(),
            validate_only: false,
        };
        for _ in 0..50 {
            let mut stacks = self.a.operator.stacks.clone();
            if stacks.set_token_limit(request.clone()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no connection within 5 s");
    }
}
