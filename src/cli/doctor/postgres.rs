//! What a PostgreSQL database, its role and its defaults say of themselves.

use std::time::Duration;

use super::{codes::Code, finding::Findings};
use crate::{
    config::DatabaseFlags,
    store::{Error, Location, PostgresFacts, Store},
};

/// Connections of a replica besides those of `--database-connections`.
const OWN_CONNECTIONS: i64 = 4;
/// Idle connections must be probed within this time, or those of a replica that vanished stay open.
const KEEPALIVE_WITHIN: Duration = Duration::from_mins(10);
/// Time-outs of the session that end what the service needs, and the least that it needs: each
/// statement has 6 s, a connection may be idle for 5 min, and a change may take 10 s.
const TIMEOUTS: [(&str, Duration); 3] = [
    ("statement_timeout", Duration::from_secs(6)),
    ("idle_session_timeout", Duration::from_mins(5)),
    ("transaction_timeout", Duration::from_secs(10)),
];

pub async fn check(
    store: &Store,
    location: &Location,
    flags: &DatabaseFlags,
    findings: &mut Findings,
) -> Result<(), Error> {
    let facts = store.postgres_facts().await?;
    if location.has_direct() && !store.urls_agree().await? {
        let problem = "--database-url and --database-direct-url lead to different databases";
        let fix = "Let both lead to the same database of the same server, and only one through the \
                   pooler";
        findings.add(Code::DatabaseDirectElsewhere, problem, fix);
    }
    check_database(&facts, findings);
    check_replication(&facts, findings);
    check_defaults(&facts, findings);
    check_connections(&facts, flags, findings);
    Ok(())
}

/// Checks that the role may read and change every table. Returns whether it may.
pub async fn check_privileges(store: &Store, findings: &mut Findings) -> Result<bool, Error> {
    let missing = store.missing_privileges().await?;
    if missing.is_empty() {
        return Ok(true);
    }
    let role = quoted(&store.postgres_facts().await?.role);
    let problem = format!("the role {role} lacks privileges: {}", missing.join(", "));
    let fix = format!(
        "`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}`, with the \
         schema of the tables instead of `public` if it differs"
    );
    findings.add(Code::DatabasePrivileges, problem, fix);
    Ok(false)
}

fn check_database(facts: &PostgresFacts, findings: &mut Findings) {
    if facts.encoding != "UTF8" {
        let problem = format!(
            "the encoding of the database is {}, so that names in other scripts are refused or \
             garbled",
            facts.encoding
        );
        let fix = "Dump the database, `CREATE DATABASE stacktoken ENCODING 'UTF8' TEMPLATE \
                   template0`, restore into it, then `stacktoken migrate new-epoch`";
        findings.add(Code::DatabaseEncoding, problem, fix);
    }
    if facts.is_superuser {
        let role = quoted(&facts.role);
        let problem =
            format!("the role {role} is a superuser: a stolen password opens every database");
        let fix = format!("`ALTER ROLE {role} NOSUPERUSER`, and let the role own its tables only");
        findings.add(Code::DatabaseSuperuser, problem, fix);
    }
    if !facts.is_durable {
        let problem = "fsync or full_page_writes is off: a crash of the host loses acknowledged \
                       changes, revokes among them, or the whole database";
        let fix = "`ALTER SYSTEM SET fsync = on`, `ALTER SYSTEM SET full_page_writes = on`, `SELECT \
                   pg_reload_conf()`";
        findings.add(Code::DatabaseNotDurable, problem, fix);
    }
}

fn check_replication(facts: &PostgresFacts, findings: &mut Findings) {
    if facts.standbys > 0 && !facts.waits_for_standby {
        let problem = format!(
            "{} standbys replicate asynchronously: a failover can lose acknowledged changes, revokes \
             among them",
            facts.standbys
        );
        let fix = "`ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'`, `SELECT \
                   pg_reload_conf()`; with Patroni, `synchronous_mode: true` and \
                   `synchronous_mode_strict: true`";
        findings.add(Code::DatabaseAsynchronous, problem, fix);
    }
    if facts.waits_for_standby && facts.synchronous_standbys == 0 {
        let problem = "commits wait for a synchronous standby, and none is connected: no change can \
                       be made, and no replica becomes ready";
        let fix = "Start the standby that synchronous_standby_names names: `SELECT application_name, \
                   state, sync_state FROM pg_stat_replication`. Do not cancel the waiting commits";
        findings.add(Code::DatabaseStandbyMissing, problem, fix);
    }
}

fn check_defaults(facts: &PostgresFacts, findings: &mut Findings) {
    let of_role = format!(
        "ALTER ROLE {} IN DATABASE {}",
        quoted(&facts.role),
        quoted(&facts.database)
    );
    if ["off", "local", "remote_write"].contains(&&*facts.synchronous_commit) {
        let problem = format!(
            "synchronous_commit is {} by default. The service sets `on` in its own transactions, but \
             other tools do not",
            facts.synchronous_commit
        );
        let fix = format!("`{of_role} SET synchronous_commit = on`");
        findings.add(Code::DatabaseCommitDefault, problem, fix);
    }
    if facts.isolation != "read committed" {
        let problem = format!(
            "default_transaction_isolation is {}, so that each lookup takes a transaction of its own \
             and two more round trips",
            facts.isolation
        );
        let fix = format!("`{of_role} SET default_transaction_isolation = 'read committed'`");
        findings.add(Code::DatabaseIsolationDefault, problem, fix);
    }
    for (name, least) in TIMEOUTS {
        let Some(short) = facts.timeout(name).filter(|timeout| *timeout < least) else {
            continue;
        };
        let problem = format!(
            "{name} is {short:?} for this role, and the service needs at least {least:?}: it sets \
             time-outs of its own"
        );
        findings.add(
            Code::DatabaseSessionTimeout,
            problem,
            format!("`{of_role} SET {name} = 0`"),
        );
    }
    if let Some(after) = facts
        .keepalive_after()
        .filter(|after| *after > KEEPALIVE_WITHIN)
    {
        let problem = format!(
            "the server probes an idle connection only after {} s, so those of a replica that has \
             vanished stay open as long",
            after.as_secs()
        );
        let fix = "`ALTER SYSTEM SET tcp_keepalives_idle = 60`, `SELECT pg_reload_conf()`";
        findings.add(Code::DatabaseKeepalive, problem, fix);
    }
}

fn check_connections(facts: &PostgresFacts, flags: &DatabaseFlags, findings: &mut Findings) {
    let needed = i64::from(flags.database_connections) + OWN_CONNECTIONS;
    if needed <= facts.connections {
        return;
    }
    let problem = format!(
        "one replica opens up to {needed} connections (--database-connections + {OWN_CONNECTIONS}), and \
         the role can have {}",
        facts.connections
    );
    let fix = format!(
        "Set --database-connections {}; or raise `max_connections` of the server, or `ALTER ROLE {} \
         CONNECTION LIMIT -1`",
        (facts.connections - OWN_CONNECTIONS).max(2),
        quoted(&facts.role)
    );
    findings.add(Code::DatabaseConnections, problem, fix);
}

/// Quotes a name for SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
