//! Takes a connection from its pool for one transaction. The connection returns to the pool only
//! after a successful COMMIT or ROLLBACK. If a transaction is dropped, it is rolled back in the
//! background.

use std::{sync::Arc, time::Duration};

use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DbErr, ExecResult, QueryResult, RuntimeErr, Statement,
    Values,
    sqlx::{self, AssertSqlSafe, Executor as _, Postgres, Sqlite, pool::PoolConnection},
};
use sea_query_sqlx::SqlxValues;

use super::notices::watched;
use crate::store::engine::{dialect::Dialect, read_limits::ReadPermit};

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Access {
    /// Read and write.
    Write,
    /// Read from one snapshot.
    Read,
    /// Read with a new snapshot for each statement, taken after the statement has acquired its
    /// locks.
    UpToDate,
}

/// Begins a change on PostgreSQL and sets everything that it needs, in one round trip, so that the
/// defaults of the database, the role and the session do not matter. Start-up options are not used,
/// because poolers refuse them. Session settings are not used, because behind a pooler they leak
/// into other sessions or get lost.
///
/// READ COMMITTED is needed because tokens are counted for the limit (R6) under the lock of the
/// stack, so each statement must see everything committed before it. A replica that stops in the
/// middle of a change holds its locks for at most the statement time-out plus the idle time-out.
/// `synchronous_commit` is raised to `on`, but a stricter `remote_apply` is kept. Warnings must not
/// be suppressed, because one of them says that a COMMIT is only on this server and not on a
/// standby.
const WRITE_ON_POSTGRES: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL lock_timeout = '3s'; \
    SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '3s'; \
    SET LOCAL client_min_messages = warning; \
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
    WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// Begins a transaction that reads from one snapshot.
const READ_ON_POSTGRES: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '3s'";

/// Begins a transaction for one read that must see everything committed before it. It is not READ
/// ONLY, because the read itself checks whether the database accepts changes.
const READ_UP_TO_DATE_ON_POSTGRES: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '3s'";

/// How long the rollback of a dropped transaction may take before its connection is closed. SQLite
/// needs no limit, because its worker thread is busy until the statement ends anyway.
const ROLLBACK_FOR: Duration = Duration::from_secs(5);

enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// A connection inside a transaction.
pub(super) struct PooledConnection {
    /// `None` once the connection is closed, or is handed over to be rolled back.
    connection: Option<Connection>,
    /// Whether the transaction is known to be committed or rolled back.
    ended: bool,
    /// The read permit. It is dropped after the connection, so that the next holder of the permit
    /// finds a free connection.
    read_permit: Option<ReadPermit>,
}

/// Runs the same code on a connection to either engine.
macro_rules! on_either {
    ($pooled:expr, |$connection:ident| $work:expr) => {
        match &mut $pooled.connection {
            Some(Connection::Sqlite(connection)) => {
                let $connection = &mut **connection;
                $work
            }
            Some(Connection::Postgres(connection)) => {
                let $connection = &mut **connection;
                $work
            }
            None => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
        }
    };
}

impl PooledConnection {
    /// Begins a transaction. `first` is empty, or begins with a semicolon and is sent in the same
    /// round trip. Returns the rows of the settings and of `first`.
    pub async fn begin(
        pool: &DatabaseConnection,
        access: Access,
        first: &str,
    ) -> Result<(Self, Vec<QueryResult>), DbErr> {
        let mut pooled = Self::acquire(pool).await?;
        let statement = begin_statement(Dialect::of_pool(pool), access);
        // If the connection is still inside a transaction, SQLite rejects BEGIN, and PostgreSQL
        // sends a warning.
        let run = pooled.query_unprepared(format!("{statement}{first}"));
        let (begun, warned) = watched(run).await;
        let rows = begun?;
        if warned {
            pooled.close();
            let text = "the connection was inside a transaction";
            return Err(DbErr::Conn(RuntimeErr::Internal(text.to_owned())));
        }
        Ok((pooled, rows))
    }

    /// Runs one PostgreSQL statement in a transaction with the same settings as a change. BEGIN,
    /// the settings, the statement and COMMIT are sent in one round trip, so a replica that stops
    /// meanwhile holds no lock. Returns the rows of all statements, with those of `statement` last,
    /// and whether there was a warning. A warning means that a standby may not have the change.
    pub async fn run_alone(
        pool: &DatabaseConnection,
        statement: &str,
    ) -> Result<(Vec<QueryResult>, bool), DbErr> {
        let mut pooled = Self::acquire(pool).await?;
        let run = pooled.query_unprepared(format!("{WRITE_ON_POSTGRES}; {statement}; COMMIT"));
        let (rows, warned) = watched(run).await;
        let rows = rows?;
        pooled.ended = true;
        Ok((rows, warned))
    }

    async fn acquire(pool: &DatabaseConnection) -> Result<Self, DbErr> {
        let connection = match Dialect::of_pool(pool) {
            Dialect::Sqlite => pool
                .get_sqlite_connection_pool()
                .acquire()
                .await
                .map(Connection::Sqlite),
            Dialect::Postgres => pool
                .get_postgres_connection_pool()
                .acquire()
                .await
                .map(Connection::Postgres),
        };
        Ok(Self {
            connection: Some(connection.map_err(not_acquired)?),
            ended: false,
            read_permit: None,
        })
    }

    pub fn keep(&mut self, read_permit: Option<ReadPermit>) {
        self.read_permit = read_permit;
    }

    /// Moves the connection out, and leaves `self` without one.
    pub const fn take(&mut self) -> Self {
        Self {
            connection: self.connection.take(),
            ended: self.ended,
            read_permit: self.read_permit.take(),
        }
    }

    pub async fn commit(mut self) -> Result<(), DbErr> {
        self.end("COMMIT").await
    }

    pub async fn rollback(mut self) -> Result<(), DbErr> {
        self.end("ROLLBACK").await
    }

    async fn end(&mut self, statement: &str) -> Result<(), DbErr> {
        let done = self.execute_unprepared(statement).await;
        self.ended = done.is_ok();
        if !self.ended {
            // Roll back first, because a connection that is closed inside a transaction could keep
            // its lock.
            if matches!(self.connection, Some(Connection::Sqlite(_))) {
                let _ = self.execute_unprepared("ROLLBACK").await;
            }
            self.close();
        }
        done.map(|_| ())
    }

    /// Closes the connection, so that it does not return to its pool.
    fn close(&mut self) {
        match self.connection.take() {
            Some(Connection::Sqlite(mut connection)) => connection.close_on_drop(),
            Some(Connection::Postgres(mut connection)) => connection.close_on_drop(),
            None => {}
        }
    }

    async fn query_unprepared(&mut self, sql: String) -> Result<Vec<QueryResult>, DbErr> {
        let sql = AssertSqlSafe(sql);
        on_either!(self, |connection| connection
            .fetch_all(sql)
            .await
            .map(|rows| rows.into_iter().map(Into::into).collect())
            .map_err(not_queried))
    }

    pub async fn execute_unprepared(&mut self, sql: &str) -> Result<ExecResult, DbErr> {
        let sql = AssertSqlSafe(sql.to_owned());
        on_either!(self, |connection| connection
            .execute(sql)
            .await
            .map(Into::into)
            .map_err(not_executed))
    }

    pub async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let (sql, values) = parts(statement);
        on_either!(self, |connection| sqlx::query_with(sql, values)
            .execute(connection)
            .await
            .map(Into::into)
            .map_err(not_executed))
    }

    pub async fn query_one(&mut self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let (sql, values) = parts(statement);
        on_either!(self, |connection| sqlx::query_with(sql, values)
            .fetch_optional(connection)
            .await
            .map(|row| row.map(Into::into))
            .map_err(not_queried))
    }

    pub async fn query_all(&mut self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let (sql, values) = parts(statement);
        on_either!(self, |connection| sqlx::query_with(sql, values)
            .fetch_all(connection)
            .await
            .map(|rows| rows.into_iter().map(Into::into).collect())
            .map_err(not_queried))
    }
}

const fn begin_statement(dialect: Dialect, access: Access) -> &'static str {
    match (dialect, access) {
        (Dialect::Postgres, Access::Write) => WRITE_ON_POSTGRES,
        (Dialect::Postgres, Access::Read) => READ_ON_POSTGRES,
        (Dialect::Postgres, Access::UpToDate) => READ_UP_TO_DATE_ON_POSTGRES,
        (Dialect::Sqlite, Access::Write) => "BEGIN IMMEDIATE",
        // The snapshot is taken at the first read.
        (Dialect::Sqlite, Access::Read | Access::UpToDate) => "BEGIN DEFERRED",
    }
}

impl Drop for PooledConnection {
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself; a process that ends before it takes the connection along"
    )]
    fn drop(&mut self) {
        if self.ended || self.connection.is_none() {
            return;
        }
        let mut pooled = Self {
            connection: self.connection.take(),
            // The rollback is not repeated, whatever its result.
            ended: true,
            read_permit: self.read_permit.take(),
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return pooled.close();
        }
        tokio::spawn(async move {
            let on_sqlite = matches!(pooled.connection, Some(Connection::Sqlite(_)));
            let rollback = pooled.end("ROLLBACK");
            if on_sqlite {
                let _ = rollback.await;
            } else if tokio::time::timeout(ROLLBACK_FOR, rollback).await.is_err() {
                pooled.close();
            }
        });
    }
}

fn parts(statement: Statement) -> (AssertSqlSafe<String>, SqlxValues) {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    (AssertSqlSafe(statement.sql), SqlxValues(values))
}

fn not_acquired(error: sqlx::Error) -> DbErr {
    match error {
        sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
        sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
        error => DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))),
    }
}

fn not_executed(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error)))
}

fn not_queried(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}
