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
        guard::{Announced, Guard, Intent},
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

/// The position of a row of the change log, and its instant in microseconds. On PostgreSQL the
/// position is the id of the transaction. SQLite assigns the position again after a rollback.
pub(in crate::store) type WrittenRow = (i64, i64);

/// The subjects that a transaction changes, and its position in the change log.
#[derive(Default)]
pub(super) struct ChangeSet {
    /// Cached facts about these subjects may be wrong once the transaction is committed.
    pub subjects: Vec<Subject>,
    /// One of the change log rows that the transaction wrote.
    pub position: Option<WrittenRow>,
    /// What the guard keeps of the transaction.
    pub intents: Vec<Intent>,
}

/// How a transaction ended whose COMMIT was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    RolledBack,
    /// It has ended, and this database does not say how.
    Unknown,
}

impl ChangeSet {
    /// Adds the changes of another transaction that is committed together with this one.
    pub fn add(&mut self, other: Self) {
        self.subjects.extend(other.subjects);
        self.position = other.position.or(self.position);
        self.intents.extend(other.intents);
    }
}

/// Commits transactions. If a COMMIT is not answered, finds out whether its transaction has ended.
/// Until then, the subjects that the transaction changes are barred from the cache.
pub(in crate::store) struct Outcomes {
    pools: Arc<ArcSwap<Pools>>,
    cache: OnceLock<Arc<Cache>>,
    guard: OnceLock<Arc<Guard>>,
}

impl Outcomes {
    pub const fn new(pools: Arc<ArcSwap<Pools>>) -> Self {
        Self {
            pools,
            cache: OnceLock::new(),
            guard: OnceLock::new(),
        }
    }

    /// Registers the cache from which the subjects of a change are barred until its outcome is
    /// known.
    pub fn bar_from(&self, cache: Arc<Cache>) {
        let _ = self.cache.set(cache);
    }

    /// Registers the guard, which is told what a transaction takes away before it is committed, and
    /// how it ended.
    pub fn report_to(&self, guard: Arc<Guard>) {
        let _ = self.guard.set(guard);
    }

    async fn announce(&self, intents: Vec<Intent>) -> Result<Option<Announced>, Error> {
        match self.guard.get() {
            Some(guard) if !intents.is_empty() => Ok(Some(guard.announce(intents).await?)),
            _ => Ok(None),
        }
    }

    fn bar(&self, changes: &ChangeSet) -> Option<CacheBarrier> {
        let cache = self.cache.get()?;
        (!changes.subjects.is_empty()).then(|| cache.bar(&changes.subjects))
    }

    /// Returns how a transaction has ended. `None` if it has not.
    async fn fate(
        &self,
        dialect: Dialect,
        position: Option<WrittenRow>,
    ) -> Result<Option<Fate>, Error> {
        match (dialect, position) {
            (Dialect::Sqlite, _) => self.fate_on_sqlite(position).await.map(Some),
            (Dialect::Postgres, Some((xid, _))) => self.fate_on_postgres(xid).await,
            (Dialect::Postgres, None) => Ok(Some(Fate::Unknown)),
        }
    }

    /// Waits for the write lock on a new connection. Once it is acquired, the former transaction
    /// has ended.
    async fn fate_on_sqlite(&self, position: Option<WrittenRow>) -> Result<Fate, Error> {
        let pools = self.pools.load_full();
        let tx = Transaction::begin(&pools.writer, Access::Write).await?;
        let sql =
            "SELECT EXISTS (SELECT 1 FROM changes WHERE id = $1 AND changed_at = $2) AS found";
        let backend = Dialect::Sqlite.backend();
        let (position, at) = position.unzip();
        let values = [position.into(), at.into()];
        let statement = Statement::from_sql_and_values(backend, sql, values);
        let row = tx.query_one_raw(statement).await?;
        let committed: bool = row.is_some_and(|row| row.try_get("", "found").unwrap_or(false));
        tx.rollback().await?;
        tracing::info!(committed, "the outcome of a change is known");
        Ok(if committed {
            Fate::Committed
        } else {
            Fate::RolledBack
        })
    }

    async fn fate_on_postgres(&self, xid: i64) -> Result<Option<Fate>, Error> {
        let pools = self.pools.load_full();
        let sql = format!("SELECT pg_catalog.pg_xact_status('{xid}'::xid8) AS status");
        let statement = Statement::from_string(Dialect::Postgres.backend(), sql);
        match pools.control.query_one_raw(statement).await {
            Ok(row) => {
                // `None` means that the transaction is so old that PostgreSQL no longer keeps its
                // status.
                let status: Option<String> = row.and_then(|row| row.try_get("", "status").ok());
                tracing::debug!(xid, status, "querying the outcome of a change");
                Ok(match status.as_deref() {
                    Some("in progress") => None,
                    Some("committed") => Some(Fate::Committed),
                    Some("aborted") => Some(Fate::RolledBack),
                    _ => Some(Fate::Unknown),
                })
            }
            // The error "is in the future" means that this database has lost the transaction, so
            // the transaction will never be committed here. Another database may have committed it.
            Err(error) if is_invalid_parameter(&error) => Ok(Some(Fate::Unknown)),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a transaction has ended. Returns how.
    async fn ended(&self, dialect: Dialect, position: Option<WrittenRow>) -> Fate {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.fate(dialect, position).await {
                Ok(Some(fate)) => return fate,
                Ok(None) => {}
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
        mut changes: ChangeSet,
    ) -> Result<(), Error> {
        let bar = self.bar(&changes);
        let position = changes.position;
        let announced = match self.announce(std::mem::take(&mut changes.intents)).await {
            Ok(announced) => announced,
            Err(error) => {
                let _ = connection.rollback().await;
                return Err(error);
            }
        };
        let commit = watched(connection.commit());
        tokio::pin!(commit);
        let committed = tokio::select! {
            biased;
            committed = &mut commit => Ok(committed),
            // The transaction has ended but its COMMIT is not answered, so the connection is dead.
            fate = self.ended_beside(dialect, position) => Err(fate),
        };
        match committed {
            Ok((Ok(()), false)) => {
                tell(announced, Fate::Committed).await;
                Ok(())
            }
            // The transaction is committed on this server, so the bar can be lifted. But a standby
            // may not have the transaction.
            Ok((Ok(()), true)) => {
                tell(announced, Fate::Committed).await;
                Err(unknown("committed with a warning: not replicated"))
            }
            Err(fate) => {
                tell(announced, fate).await;
                Err(unknown("the connection is dead"))
            }
            Ok((Err(error), _)) => {
                if bar.is_some() || announced.is_some() {
                    tokio::spawn(async move {
                        let fate = self.ended(dialect, position).await;
                        drop(bar);
                        tell(announced, fate).await;
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
    async fn ended_beside(&self, dialect: Dialect, position: Option<WrittenRow>) -> Fate {
        match (dialect, position) {
            (Dialect::Sqlite, _) | (Dialect::Postgres, None) => {
                return std::future::pending().await;
            }
            (Dialect::Postgres, Some(_)) => {}
        }
        sleep(ASK_AFTER).await;
        let fate = self.ended(dialect, position).await;
        // The response to the COMMIT may still arrive.
        sleep(ASK_AFTER).await;
        fate
    }
}

/// Tells the guard how a transaction has ended.
async fn tell(announced: Option<Announced>, fate: Fate) {
    match (announced, fate) {
        (Some(announced), Fate::Committed) => announced.committed().await,
        (Some(announced), Fate::RolledBack) => announced.aborted(),
        (None, _) | (_, Fate::Unknown) => {}
    }
}

pub(super) fn unknown(why: &str) -> Error {
    Error::OutcomeUnknown(DbErr::Conn(RuntimeErr::Internal(why.to_owned())))
}

fn is_invalid_parameter(error: &DbErr) -> bool {
    code_of(error).as_deref() == Some("22023")
}
