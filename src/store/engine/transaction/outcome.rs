//! Commits a transaction, and protects the cache until the outcome is known.
//!
//! A COMMIT that was sent may take effect whatever the client does afterwards. Therefore a separate
//! task waits for the outcome, even if the caller is gone. From before the COMMIT is sent until its
//! outcome is known, the subjects of the change are barred from the cache.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use sea_orm::{ConnectionTrait as _, DbErr, RuntimeErr, Statement};
use tokio::time::sleep;

use super::{Access, Transaction, connection::PooledConnection, notices::watched};
use crate::{
    store::{
        Error, Pools,
        engine::{dialect::Dialect, error::code_of},
    },
    telemetry::context,
};
use stacktoken_core::facts_cache::{Cache, CacheBarrier, Subject};

/// How long a COMMIT on PostgreSQL may take before the status of the transaction is queried on
/// another connection.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// The first pause between queries of the status. Each further pause is twice as long, up to
/// `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The subjects that a transaction changes, and its position in the change log.
#[derive(Default)]
pub(super) struct ChangeSet {
    /// Cached facts about these subjects may be wrong once the transaction is committed.
    pub subjects: Vec<Subject>,
    /// The position of one of the change log rows that the transaction wrote. On PostgreSQL this is
    /// the transaction's own id.
    pub position: Option<i64>,
}

impl ChangeSet {
    /// Adds the changes of another transaction that is committed together with this one.
    pub fn add(&mut self, other: Self) {
        self.subjects.extend(other.subjects);
        self.position = other.position.or(self.position);
    }
}

/// Commits transactions. If a COMMIT is not answered, finds out whether its transaction has ended.
/// Until then, the subjects that the transaction changes are barred from the cache.
pub(in crate::store) struct Outcomes {
    pools: Arc<ArcSwap<Pools>>,
    cache: OnceLock<Arc<Cache>>,
}

impl Outcomes {
    pub const fn new(pools: Arc<ArcSwap<Pools>>) -> Self {
        Self {
            pools,
            cache: OnceLock::new(),
        }
    }

    /// Registers the cache from which the subjects of a change are barred until its outcome is
    /// known.
    pub fn bar_from(&self, cache: Arc<Cache>) {
        let _ = self.cache.set(cache);
    }

    fn bar(&self, changes: &ChangeSet) -> Option<CacheBarrier> {
        let cache = self.cache.get()?;
        (!changes.subjects.is_empty()).then(|| cache.bar(&changes.subjects))
    }

    /// Returns whether a transaction has ended, either with a commit or with a rollback.
    async fn has_ended(&self, dialect: Dialect, position: Option<i64>) -> Result<bool, Error> {
        match (dialect, position) {
            (Dialect::Sqlite, _) => self.has_ended_on_sqlite(position).await,
            (Dialect::Postgres, Some(xid)) => self.has_ended_on_postgres(xid).await,
            (Dialect::Postgres, None) => Ok(true),
        }
    }

    /// Waits for the write lock on a new connection. Once it is acquired, the former transaction
    /// has ended.
    async fn has_ended_on_sqlite(&self, position: Option<i64>) -> Result<bool, Error> {
        let pools = self.pools.load_full();
        let tx = Transaction::begin(&pools.writer, Access::Write).await?;
        let sql = "SELECT EXISTS (SELECT 1 FROM changes WHERE id = $1) AS found";
        let backend = Dialect::Sqlite.backend();
        let statement = Statement::from_sql_and_values(backend, sql, [position.into()]);
        let row = tx.query_one_raw(statement).await?;
        let committed: bool = row.is_some_and(|row| row.try_get("", "found").unwrap_or(false));
        tx.rollback().await?;
        tracing::info!(committed, "the outcome of a change is known");
        Ok(true)
    }

    async fn has_ended_on_postgres(&self, xid: i64) -> Result<bool, Error> {
        let pools = self.pools.load_full();
        let sql = format!("SELECT pg_catalog.pg_xact_status('{xid}'::xid8) AS status");
        let statement = Statement::from_string(Dialect::Postgres.backend(), sql);
        match pools.control.query_one_raw(statement).await {
            Ok(row) => {
                // `None` means that the transaction is so old that PostgreSQL no longer keeps its
                // status.
                let status: Option<String> = row.and_then(|row| row.try_get("", "status").ok());
                tracing::debug!(xid, status, "querying the outcome of a change");
                Ok(status.as_deref() != Some("in progress"))
            }
            // The error "is in the future" means that this database has lost the transaction, so
            // the transaction will never be committed.
            Err(error) if is_invalid_parameter(&error) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a transaction has ended.
    async fn ended(&self, dialect: Dialect, position: Option<i64>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.has_ended(dialect, position).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the outcome of a change is not known yet"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Commits a transaction in a separate task, and waits for the result.
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    pub(super) async fn commit(
        self: &Arc<Self>,
        connection: PooledConnection,
        dialect: Dialect,
        changes: ChangeSet,
    ) -> Result<(), Error> {
        let outcomes = self.clone();
        let work = async move { outcomes.commit_here(connection, dialect, changes).await };
        match tokio::spawn(context::carried(work)).await {
            Ok(done) => done,
            Err(_) => Err(unknown("the task that waited for the commit has ended")),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    pub(super) async fn commit_here(
        self: Arc<Self>,
        connection: PooledConnection,
        dialect: Dialect,
        changes: ChangeSet,
    ) -> Result<(), Error> {
        let bar = self.bar(&changes);
        let position = changes.position;
        let commit = watched(connection.commit());
        tokio::pin!(commit);
        let committed = tokio::select! {
            biased;
            committed = &mut commit => Some(committed),
            // The transaction has ended but its COMMIT is not answered, so the connection is dead.
            () = self.ended_beside(dialect, position) => None,
        };
        match committed {
            Some((Ok(()), false)) => Ok(()),
            // The transaction is committed on this server, so the bar can be lifted. But a standby
            // may not have the transaction.
            Some((Ok(()), true)) => Err(unknown("committed with a warning: not replicated")),
            None => Err(unknown("the connection is dead")),
            Some((Err(error), _)) => {
                if let Some(bar) = bar {
                    tokio::spawn(async move {
                        self.ended(dialect, position).await;
                        drop(bar);
                    });
                }
                Err(match error.into() {
                    Error::Unavailable(source) => Error::OutcomeUnknown(source),
                    error => error,
                })
            }
        }
    }

    /// Waits until the database reports that a transaction has ended although its COMMIT was not
    /// answered. Waits forever on SQLite, where COMMIT always returns, however long it takes.
    async fn ended_beside(&self, dialect: Dialect, position: Option<i64>) {
        match (dialect, position) {
            (Dialect::Sqlite, _) | (Dialect::Postgres, None) => {
                return std::future::pending().await;
            }
            (Dialect::Postgres, Some(_)) => {}
        }
        sleep(ASK_AFTER).await;
        self.ended(dialect, position).await;
        // The response to the COMMIT may still arrive.
        sleep(ASK_AFTER).await;
    }
}

pub(super) fn unknown(why: &str) -> Error {
    Error::OutcomeUnknown(DbErr::Conn(RuntimeErr::Internal(why.to_owned())))
}

fn is_invalid_parameter(error: &DbErr) -> bool {
    code_of(error).as_deref() == Some("22023")
}
