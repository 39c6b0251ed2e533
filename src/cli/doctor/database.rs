//! Whether the database can be reached and used: the part that is the same for both engines, and
//! what keeps a connection from being made.

use std::{fs::OpenOptions, path::Path, sync::Arc};

use super::{Serve, clock, codes::Code, finding::Findings, postgres, schema};
use crate::{
    cli::{output, settings},
    domain::{clock::SystemClock, entropy::OsEntropy},
    store::{Location, OpenError, Pooling, Store, Unreachable},
};

/// Checks the database, its schema and its clock.
pub async fn check(
    location: &Location,
    serve: &Serve,
    (clock, findings): (Arc<SystemClock>, &mut Findings),
) {
    let can_open = match location {
        Location::Sqlite(path) => is_usable_file(location, path, findings),
        Location::Postgres(_) => is_reachable(location, &clock, findings).await,
    };
    if !can_open {
        return;
    }
    let size = settings::pool_size(&serve.database);
    let ambient = (clock.clone() as _, Arc::new(OsEntropy) as _);
    let store = match Store::open_to_inspect(location, size, ambient).await {
        Ok(store) => store,
        Err(error) => return not_opened(error, findings),
    };
    if let Err(error) = inspect(&store, location, serve, (&clock, findings)).await {
        let problem = output::error_text(&anyhow::Error::from(error).context("--database-url"));
        let fix = "Look into the log of the database for the statement that it refused";
        findings.add(Code::DatabaseUnusable, problem, fix);
    }
    store.close().await;
}

async fn inspect(
    store: &Store,
    location: &Location,
    serve: &Serve,
    (clock, findings): (&SystemClock, &mut Findings),
) -> Result<(), crate::store::Error> {
    let mut may_read = true;
    if store.has_other_writers() {
        postgres::check(store, location, &serve.database, findings).await?;
        may_read = postgres::check_privileges(store, findings).await?;
    }
    let is_current = may_read && schema::check(store, findings).await;
    if is_current || store.has_other_writers() {
        clock::compare(store, serve.tuning.max_clock_skew, (clock, findings)).await?;
    }
    Ok(())
}

/// Checks that the file exists and may be written. SQLite itself would report neither in words.
fn is_usable_file(location: &Location, path: &Path, findings: &mut Findings) -> bool {
    if let Err(error) = settings::require_file(location) {
        let fix = "`stacktoken migrate up` creates the file; if it exists elsewhere, correct \
                   --database-url";
        findings.add(Code::DatabaseFileMissing, error, fix);
        return false;
    }
    // Nothing is written: opening with this access is what SQLite does.
    let opened = OpenOptions::new().read(true).write(true).open(path);
    if let Err(error) = opened {
        let problem = format!("{location} cannot be opened for writing: {error}");
        let path = path.display();
        let fix = format!("Run as the user of `serve`, or give it the file: `chown USER {path}`");
        findings.add(Code::DatabaseFileDenied, problem, fix);
        return false;
    }
    true
}

async fn is_reachable(location: &Location, clock: &SystemClock, findings: &mut Findings) -> bool {
    if !location.is_private() {
        let problem = format!(
            "{location} is not verified: another server can impersonate it and read the password"
        );
        let fix =
            "Add `sslmode=verify-full&sslrootcert=/path/to/ca.crt` to the parameters of the URL";
        findings.add(Code::DatabaseUnverified, problem, fix);
    }
    if !pooling(location, findings).await {
        return false;
    }
    match location.reach(clock).await {
        Ok(()) => true,
        Err(unreachable) => {
            let (code, fix) = explain(&unreachable);
            findings.add(code, &unreachable, fix);
            // A standby or a read-only database can be inspected.
            matches!(code, Code::DatabaseStandby | Code::DatabaseReadOnly)
        }
    }
}

/// Checks for poolers in transaction mode. Returns whether the store can be opened through them.
async fn pooling(location: &Location, findings: &mut Findings) -> bool {
    let [calls, direct] = location.pooling().await;
    let Pooling::Transaction { prepares } = calls else {
        return !direct_is_pooled(direct, findings);
    };
    if !location.has_direct() {
        let problem = format!(
            "{location} is behind a pooler in transaction mode, in which LISTEN succeeds but \
             receives nothing, and locks of a session are not held"
        );
        let fix = "Set --database-direct-url (STACKTOKEN_DATABASE_DIRECT_URL) to a URL that bypasses \
                   the pooler; or set `pool_mode = session` in pgbouncer.ini";
        findings.add(Code::DatabasePooler, problem, fix);
    }
    if !prepares {
        let problem = "prepared statements fail through the pooler in transaction mode";
        let fix = "Use PgBouncer 1.21 or newer with `max_prepared_statements = 200` in pgbouncer.ini; \
                   or set `pool_mode = session`";
        findings.add(Code::DatabasePoolerPrepares, problem, fix);
    }
    let is_bypassed = location.has_direct() && !direct_is_pooled(direct, findings);
    prepares && (is_bypassed || !location.has_direct())
}

fn direct_is_pooled(direct: Pooling, findings: &mut Findings) -> bool {
    if direct == Pooling::Session {
        return false;
    }
    let problem = "--database-direct-url leads to a pooler in transaction mode too";
    let fix = "Set --database-direct-url (STACKTOKEN_DATABASE_DIRECT_URL) to the address of \
               PostgreSQL itself, or of a proxy that does not pool";
    findings.add(Code::DatabaseDirectPooled, problem, fix);
    true
}

fn explain(unreachable: &Unreachable) -> (Code, &'static str) {
    match unreachable.name() {
        "tls" => (
            Code::DatabaseTls,
            "On the server, `ALTER SYSTEM SET ssl = on` and reload; in the URL, let `sslrootcert` \
             name the CA that signed its certificate: `openssl s_client -starttls postgres -connect \
             HOST:PORT -CAfile CA`",
        ),
        "credential" => (
            Code::DatabaseCredential,
            "Create the role or set its password, `ALTER ROLE stacktoken LOGIN PASSWORD '…'`, and \
             write the same one, percent-encoded, into the URL; check pg_hba.conf",
        ),
        "missing" => (
            Code::DatabaseMissing,
            "`CREATE DATABASE stacktoken OWNER stacktoken ENCODING 'UTF8' TEMPLATE template0`, then \
             `stacktoken migrate up`; or correct the name in the URL",
        ),
        "standby" => (
            Code::DatabaseStandby,
            "Let the URL lead to the primary; after a failover that did not finish, promote the \
             standby: `SELECT pg_promote()`",
        ),
        "read-only" => (
            Code::DatabaseReadOnly,
            "`ALTER DATABASE stacktoken RESET default_transaction_read_only`, and the same with \
             `ALTER ROLE` and `ALTER SYSTEM` if it is set there",
        ),
        "protocol" => (
            Code::DatabaseRefused,
            "With PgBouncer, set `ignore_startup_parameters = extra_float_digits` in pgbouncer.ini",
        ),
        "refused" => (
            Code::DatabaseRefused,
            "Look into the log of the database for the refused connection",
        ),
        _ => (
            Code::DatabaseUnreachable,
            "Check host and port of the URL and that the server accepts connections: `pg_isready -h \
             HOST -p PORT`; in Kubernetes, check the network policy for egress",
        ),
    }
}

fn not_opened(error: OpenError, findings: &mut Findings) {
    let (code, fix) = match &error {
        OpenError::TooOld { .. } => (
            Code::DatabaseTooOld,
            "Upgrade PostgreSQL to 13 or newer, then `stacktoken migrate new-epoch`",
        ),
        _ => (
            Code::DatabaseUnusable,
            "Check that --database-url names a database of stacktoken; for a file: `sqlite3 FILE \
             'PRAGMA integrity_check'`, and restore a backup if it is damaged",
        ),
    };
    findings.add(code, output::error_text(&error.into()), fix);
}
