//! The store: whole transactions, not table access. Every change leaves its audit row and,
//! where it can alter a verdict, its row of history in the same transaction (R12, R14).
//! The only room that knows sea-orm.

/// One transaction for writing, begun again while another is in its way. A macro, since the
/// compiler cannot yet see that the future of an async closure may move between threads.
macro_rules! writing {
    ($store:expr, |$tx:ident| $work:block) => {{
        let mut pauses = $crate::store::RETRY_AFTER.into_iter();
        loop {
            let done: Result<_, $crate::store::Error> = match $store.begin_write().await {
                Ok(transaction) => {
                    let $tx = &transaction;
                    let done = async { $work }.await;
                    $crate::store::settle(transaction, done).await
                }
                Err(error) => Err(error),
            };
            match (&done, pauses.next()) {
                (Err($crate::store::Error::Conflict(_)), Some(pause)) => {
                    tokio::time::sleep(pause).await;
                }
                _ => break done,
            }
        }
    }};
}

/// Several reads on one snapshot.
macro_rules! reading {
    ($store:expr, |$tx:ident| $work:block) => {{
        let transaction = $store.begin_read().await?;
        let $tx = &transaction;
        let done: Result<_, $crate::store::Error> = async { $work }.await;
        transaction.rollback().await?;
        done
    }};
}

mod audit;
mod changes;
mod connect;
mod entity;
mod error;
mod listing;
mod location;
mod migration;
mod schema;
mod stacks;
mod tokens;
mod verdicts;

use std::{
    fs::File,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, EntityTrait as _, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};

use crate::domain::{entropy::Entropy, timestamp::Timestamp};

pub use self::{
    audit::{AuditCursor, AuditFilter, AuditPage, RefusalNote, RefusedCall},
    connect::OpenError,
    error::Error,
    listing::{ListQuery, Order, TokenCursor, TokenPage},
    location::{Location, LocationError},
    schema::{Schema, SchemaError},
    stacks::{
        MemberChange, MembersChanged, Register, StackCursor, StackPage, StackStep, StackWithMembers,
    },
    tokens::{Issue, Kept},
    verdicts::Found,
};

/// How long to wait before each further attempt at a transaction that was in another's way.
const RETRY_AFTER: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
];

/// A store of stacks and tokens.
pub struct Store {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    entropy: Arc<dyn Entropy>,
    epoch: OnceLock<i64>,
    /// Held, never read: gone with the process, however that ends.
    _lock: File,
}

impl Store {
    /// Opens the store; makes the file if there is none. The schema is another matter: see
    /// [`Self::migrate`] and [`Self::require_current_schema`].
    ///
    /// # Errors
    /// [`OpenError`], among others where another process has the file.
    pub async fn open(location: &Location, entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        let connections = connect::open(location).await?;
        Ok(Self {
            writer: connections.writer,
            reader: connections.reader,
            entropy,
            epoch: OnceLock::new(),
            _lock: connections.lock,
        })
    }

    /// That the store can be read.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like.
    pub async fn probe_read(&self) -> Result<(), Error> {
        entity::meta::Entity::find_by_id("epoch")
            .one(&self.reader)
            .await?;
        Ok(())
    }

    /// That the store can be written: commits a heartbeat, so that a full disk or a lock
    /// shows here before it shows to a caller.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like.
    pub async fn probe_write(&self, now: Timestamp) -> Result<(), Error> {
        use sea_orm::{ColumnTrait as _, QueryFilter as _, sea_query::Expr};
        writing!(self, |tx| {
            entity::meta::Entity::update_many()
                .col_expr(entity::meta::Column::Value, Expr::val(now.as_micros()))
                .filter(entity::meta::Column::Name.eq("heartbeat"))
                .exec(tx)
                .await?;
            Ok(())
        })
    }

    /// Ends all connections, after those at work have finished.
    pub async fn close(&self) {
        for pool in [&self.reader, &self.writer] {
            // Nothing is lost here: what was acknowledged is on disk already.
            let _ = pool.clone().close().await;
        }
    }

    async fn begin_write(&self) -> Result<DatabaseTransaction, Error> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(self.writer.begin_with_options(options).await?)
    }

    async fn begin_read(&self) -> Result<DatabaseTransaction, Error> {
        Ok(self.reader.begin().await?)
    }
}

/// Ends a transaction for writing. An error undoes it; a refusal does not, since all that may
/// stand before one is the end of tokens found expired, and that is final (R8).
async fn settle<T>(tx: DatabaseTransaction, done: Result<T, Error>) -> Result<T, Error> {
    match done {
        Ok(_) | Err(Error::Refused(_)) => tx.commit().await?,
        Err(_) => tx.rollback().await?,
    }
    done
}
