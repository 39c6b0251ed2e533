//! The settings of a PostgreSQL database, a role and a session that `serve` depends on, or that an
//! operator might rely on.

use std::{collections::BTreeMap, time::Duration};

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement};

use crate::store::{Error, Store, engine::drift, engine::schema::APPLIED};

/// Selects one row about the server, the database and the role. A role that may not see the state
/// of a standby sees null, which may be synchronous.
const FACTS: &str = "SELECT r.rolname::text AS role, r.rolsuper AS superuser, \
    current_database()::text AS name, \
    current_setting('server_encoding') AS encoding, \
    current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' AS durable, \
    current_setting('synchronous_commit') AS synchronous_commit, \
    current_setting('synchronous_standby_names') <> '' AS waits, \
    current_setting('default_transaction_isolation') AS isolation, \
    (SELECT count(*) FROM pg_stat_replication) AS standbys, \
    (SELECT count(*) FROM pg_stat_replication \
     WHERE sync_state IS NULL OR sync_state IN ('sync', 'quorum')) AS synchronous, \
    least(current_setting('max_connections')::int8 \
          - current_setting('superuser_reserved_connections')::int8, \
          CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit::int8 END) AS connections \
    FROM pg_roles r WHERE r.rolname = current_user";

/// Selects numeric settings in their base units: milliseconds, and seconds for the keepalive.
const NUMBERS: &str = "SELECT name, setting::int8 AS value FROM pg_settings WHERE name IN \
    ('statement_timeout', 'idle_session_timeout', 'transaction_timeout', 'tcp_keepalives_idle')";

/// Identifies the running server and the database within it.
const IDENTITY: &str = "SELECT (SELECT oid::int8 FROM pg_database \
    WHERE datname = current_database()) AS database, \
    (EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::bigint AS started";

/// What a PostgreSQL database says of itself, in a session of the calls.
#[derive(Clone, Debug)]
pub struct PostgresFacts {
    /// The role as which the service logs in.
    pub role: String,
    /// Whether the role is a superuser.
    pub is_superuser: bool,
    /// The name of the database.
    pub database: String,
    /// The encoding of the database, such as `UTF8`.
    pub encoding: String,
    /// Whether a commit survives a crash of the host: `fsync` and `full_page_writes` are on.
    pub is_durable: bool,
    /// The default of `synchronous_commit` for this role and database.
    pub synchronous_commit: String,
    /// Whether commits wait for a standby (`synchronous_standby_names` is not empty).
    pub waits_for_standby: bool,
    /// The default isolation level for this role and database.
    pub isolation: String,
    /// How many standbys are connected.
    pub standbys: i64,
    /// How many of them may be synchronous.
    pub synchronous_standbys: i64,
    /// How many connections this role can have.
    pub connections: i64,
    numbers: BTreeMap<String, i64>,
}

impl PostgresFacts {
    /// Returns the default of a time-out of this role and database. Returns `None` if it is off or
    /// this version of PostgreSQL does not have it.
    #[must_use]
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        let millis = u64::try_from(*self.numbers.get(name)?).ok()?;
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Returns after which idle time the server probes a connection. Returns `None` if it does not,
    /// or the connection is not over TCP.
    #[must_use]
    pub fn keepalive_after(&self) -> Option<Duration> {
        let seconds = u64::try_from(*self.numbers.get("tcp_keepalives_idle")?).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

impl Store {
    /// Reads what the database says of itself. Only for PostgreSQL.
    ///
    /// # Errors
    /// Returns [`Error`] if the database does not answer, or refuses a catalog to the role.
    pub async fn postgres_facts(&self) -> Result<PostgresFacts, Error> {
        let pools = self.pools.load_full();
        let row = one(&pools.reader, FACTS).await?;
        let statement = Statement::from_string(self.backend(), NUMBERS);
        let rows = pools.reader.query_all_raw(statement).await?;
        let numbers = rows
            .iter()
            .map(|row| Ok((row.try_get("", "name")?, row.try_get("", "value")?)));
        Ok(PostgresFacts {
            role: row.try_get("", "role")?,
            is_superuser: row.try_get("", "superuser")?,
            database: row.try_get("", "name")?,
            encoding: row.try_get("", "encoding")?,
            is_durable: row.try_get("", "durable")?,
            synchronous_commit: row.try_get("", "synchronous_commit")?,
            waits_for_standby: row.try_get("", "waits")?,
            isolation: row.try_get("", "isolation")?,
            standbys: row.try_get("", "standbys")?,
            synchronous_standbys: row.try_get("", "synchronous")?,
            connections: row.try_get("", "connections")?,
            numbers: numbers.collect::<Result<_, DbErr>>()?,
        })
    }

    /// Returns whether the URL for calls and the direct URL lead to the same database of the same
    /// server. Only for PostgreSQL.
    ///
    /// # Errors
    /// Returns [`Error`] if one of them does not answer.
    pub async fn urls_agree(&self) -> Result<bool, Error> {
        let pools = self.pools.load_full();
        let [one, other] = [
            identity(&one(&pools.reader, IDENTITY).await?)?,
            identity(&one(&pools.control, IDENTITY).await?)?,
        ];
        Ok(one == other)
    }

    /// Returns the privileges on existing tables that the role lacks, such as `INSERT on tokens`.
    /// Only for PostgreSQL.
    ///
    /// # Errors
    /// Returns [`Error`] if the database does not answer.
    pub async fn missing_privileges(&self) -> Result<Vec<String>, Error> {
        let expected = drift::expected_objects().await?;
        let tables = expected.iter().filter_map(|object| {
            let name = object.strip_prefix("table ")?;
            (name != APPLIED).then(|| format!("'{name}'"))
        });
        let tables: Vec<_> = tables.collect();
        let sql = format!(
            "SELECT privilege || ' on ' || name AS missing \
             FROM unnest(ARRAY[{}]) AS name, \
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege \
             WHERE NOT has_table_privilege(to_regclass(name), privilege) ORDER BY 1",
            tables.join(", ")
        );
        let statement = Statement::from_string(self.backend(), sql);
        let rows = self.pools.load().reader.query_all_raw(statement).await?;
        let missing = rows.iter().map(|row| row.try_get("", "missing"));
        Ok(missing.collect::<Result<_, DbErr>>()?)
    }
}

fn identity(row: &QueryResult) -> Result<(i64, i64), DbErr> {
    Ok((row.try_get("", "database")?, row.try_get("", "started")?))
}

async fn one(connection: &DatabaseConnection, sql: &str) -> Result<QueryResult, DbErr> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await?;
    row.ok_or_else(|| DbErr::RecordNotFound("the role".to_owned()))
}
