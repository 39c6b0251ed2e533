//! One transaction on one connection, from BEGIN until its outcome is known.
//!
//! The driver's own transactions cannot be relied on after a failure. sqlx lowers its transaction
//! depth only after a *successful* COMMIT or ROLLBACK. But SQLite rolls back by itself when a
//! statement fails because of a full disk, an I/O error or lack of memory. The next "BEGIN" of the
//! driver would then open a savepoint inside a transaction that is never committed. Therefore:
//!
//! - A connection is reused only after a COMMIT or ROLLBACK that succeeded. Otherwise it is closed.
//! - After a failed statement, a transaction accepts no further statement and is never committed.
//! - There are no nested transactions.
//! - The outcome of a COMMIT that was sent is always awaited. Until it is known, the subjects of
//!   the change are barred from the cache (see [`outcome`]).

mod connection;
mod group;
mod notices;
mod outcome;
mod writes;

use std::sync::{
    Arc, Mutex as Guarded, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures_util::lock::Mutex;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    Statement,
};
use sea_orm_migration::prelude::async_trait;

pub(in crate::store) use self::{
    connection::Access, group::Groups, outcome::Outcomes, outcome::WrittenRow, writes::Affects,
};
use self::{connection::PooledConnection, group::Turn, outcome::ChangeSet, writes::Write};
use crate::store::{
    Error,
    engine::{dialect::Dialect, permit_queues::StackRef, read_limits::ReadPermit},
    guard::Intent,
};
use stacktoken_core::facts_cache::Subject;

/// An open transaction. Dropping it rolls it back.
pub(in crate::store) struct Transaction {
    connection: Mutex<Held>,
    dialect: Dialect,
    /// Set when a statement of this transaction has failed.
    failed: AtomicBool,
    /// The error of the statement that failed first.
    failure: Guarded<Option<DbErr>>,
    changes: Guarded<ChangeSet>,
    /// Writes that have not been sent yet.
    kept: Guarded<Vec<Write>>,
    /// The stack that was locked together with BEGIN, until [`Self::take_locked`] takes it.
    locked: Guarded<Option<Locked>>,
}

/// The connection of a transaction.
enum Held {
    Alone(PooledConnection),
    /// The transaction is committed together with others.
    InGroup(Turn),
}

impl Held {
    const fn pooled(&mut self) -> &mut PooledConnection {
        match self {
            Self::Alone(connection) => connection,
            Self::InGroup(turn) => &mut turn.connection,
        }
    }
}

/// The stack that was locked together with BEGIN, and its row if it exists.
type Locked = (StackRef, Vec<QueryResult>);

impl Transaction {
    /// Begins a transaction on a connection from this pool.
    pub async fn begin(pool: &DatabaseConnection, access: Access) -> Result<Self, Error> {
        let (connection, _) = PooledConnection::begin(pool, access, "").await?;
        Ok(Self::on(
            Held::Alone(connection),
            Dialect::of_pool(pool),
            None,
        ))
    }

    /// Begins a change on PostgreSQL and locks the row of its stack, in one round trip. `lock` is
    /// the locking statement, without parameters.
    pub async fn begin_locking(
        pool: &DatabaseConnection,
        (stack, lock): (StackRef, &str),
    ) -> Result<Self, Error> {
        let (connection, rows) = PooledConnection::begin(pool, Access::Write, lock).await?;
        let is_stack = |row: &QueryResult| row.column_names().iter().any(|name| *name == "uid");
        // The result can also contain a row of the settings, which has no such column.
        let rows = rows.into_iter().filter(is_stack).collect();
        let locked = Some((stack, rows));
        Ok(Self::on(Held::Alone(connection), Dialect::Postgres, locked))
    }

    /// Begins a change on SQLite. It is committed together with other changes that wait for their
    /// turn.
    pub async fn begin_in_group(
        groups: &Groups,
        pool: &DatabaseConnection,
        outcomes: &Arc<Outcomes>,
    ) -> Result<Self, Error> {
        let turn = groups.begin(pool, outcomes).await?;
        Ok(Self::on(Held::InGroup(turn), Dialect::Sqlite, None))
    }

    fn on(connection: Held, dialect: Dialect, locked: Option<Locked>) -> Self {
        Self {
            dialect,
            connection: Mutex::new(connection),
            failed: AtomicBool::new(false),
            failure: Guarded::default(),
            changes: Guarded::default(),
            kept: Guarded::default(),
            locked: Guarded::new(locked),
        }
    }

    /// Returns the row of the stack if the transaction locked this stack when it began, or no row
    /// if there was no such stack. Returns `None` if it locked another stack or none, or if the row
    /// was taken before.
    pub fn take_locked(&self, stack: &StackRef) -> Option<Vec<QueryResult>> {
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, rows) = locked.take_if(|(of, _)| of == stack)?;
        Some(rows)
    }

    /// Attaches a read permit, which is released together with the connection.
    pub fn with(mut self, read_permit: Option<ReadPermit>) -> Self {
        self.connection.get_mut().pooled().keep(read_permit);
        self
    }

    /// Runs one PostgreSQL statement in its own transaction, in one round trip. Returns the rows of
    /// all statements that were run, with those of `statement` last.
    ///
    /// # Errors
    /// Returns [`Error::OutcomeUnknown`] if this server committed the transaction but a standby may
    /// not have it.
    pub async fn run_alone(
        pool: &DatabaseConnection,
        statement: &str,
    ) -> Result<Vec<QueryResult>, Error> {
        match PooledConnection::run_alone(pool, statement).await? {
            (rows, false) => Ok(rows),
            (_, true) => Err(outcome::unknown("committed with a warning")),
        }
    }

    /// Records that the transaction can make cached facts about `subject` wrong once it is
    /// committed.
    pub fn touch(&self, subject: Subject) {
        self.changes().subjects.push(subject);
    }

    /// Records a change log row that this transaction has written.
    pub fn note_row(&self, row: WrittenRow) {
        self.changes().position = Some(row);
    }

    /// Records what the guard keeps of a change log row that this transaction has written.
    pub fn intend(&self, intent: Intent) {
        self.changes().intents.push(intent);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Write>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, ChangeSet> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the transaction. Its outcome is awaited even if the caller gives up.
    ///
    /// # Errors
    /// Returns [`Error::OutcomeUnknown`] if it is not known whether the transaction was committed.
    pub async fn commit(self, outcomes: &Arc<Outcomes>) -> Result<(), Error> {
        self.require_intact()?;
        self.flush().await?;
        let changes = std::mem::take(&mut *self.changes());
        match self.connection.into_inner() {
            Held::Alone(connection) => outcomes.commit(connection, self.dialect, changes).await,
            Held::InGroup(turn) => turn.commit(changes).await,
        }
    }

    /// Rolls the transaction back.
    pub async fn rollback(self) -> Result<(), Error> {
        let failure = self.failure.into_inner();
        match self.connection.into_inner() {
            Held::Alone(connection) => Ok(connection.rollback().await?),
            Held::InGroup(turn) => {
                let cause = failure.unwrap_or_else(PoisonError::into_inner);
                turn.rollback(cause).await
            }
        }
    }

    fn require_intact(&self) -> Result<(), DbErr> {
        if self.failed.load(Ordering::Acquire) {
            let text = "a statement of this transaction has failed";
            return Err(DbErr::Query(RuntimeErr::Internal(text.to_owned())));
        }
        Ok(())
    }

    fn note<T>(&self, done: Result<T, DbErr>) -> Result<T, DbErr> {
        if let Err(error) = &done {
            self.failed.store(true, Ordering::Release);
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
        }
        done
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.dialect.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.require_intact()?;
        self.flush().await?;
        let done = self
            .connection
            .lock()
            .await
            .pooled()
            .execute(statement)
            .await;
        self.note(done)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.require_intact()?;
        self.flush().await?;
        let done = self
            .connection
            .lock()
            .await
            .pooled()
            .execute_unprepared(sql)
            .await;
        self.note(done)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.require_intact()?;
        self.flush().await?;
        let found = self
            .connection
            .lock()
            .await
            .pooled()
            .query_one(statement)
            .await;
        self.note(found)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.require_intact()?;
        self.flush().await?;
        let found = self
            .connection
            .lock()
            .await
            .pooled()
            .query_all(statement)
            .await;
        self.note(found)
    }
}
