//! Reads that a verdict or the feed relies on. Each must see all that was committed before it: under
//! REPEATABLE READ a statement that waited for `ALTER TABLE` to rewrite a table finds it empty. So
//! where the default of the database, the role or the session is another than READ COMMITTED, the
//! read is made in a transaction that says so. Start-up options would be refused by poolers.

use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement};

use super::{
    Error, Store,
    transaction::{Access, Transaction},
};

/// Whether a session was seen whose default is another than READ COMMITTED.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    other: AtomicBool,
}

impl Store {
    /// The rows of a statement that asks for the columns of an origin; at least one.
    pub(super) async fn read_evidence(
        &self,
        pool: &DatabaseConnection,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, Error> {
        if self.isolation.other.load(Ordering::Relaxed) {
            return read_committed(pool, statement).await;
        }
        let rows = pool.query_all_raw(statement.clone()).await?;
        if first(&rows)?.try_get("", "up_to_date")? {
            return Ok(rows);
        }
        if !self.isolation.other.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "default_transaction_isolation is not read committed: each look-up takes a \
                 transaction, and two round trips more"
            );
        }
        read_committed(pool, statement).await
    }
}

async fn read_committed(
    pool: &DatabaseConnection,
    statement: Statement,
) -> Result<Vec<QueryResult>, Error> {
    let tx = Transaction::begin(pool, Access::UpToDate).await?;
    let rows = tx.query_all_raw(statement).await;
    // What was read stands; a connection that does not roll back is closed.
    let _ = tx.rollback().await;
    let rows = rows?;
    first(&rows)?;
    Ok(rows)
}

/// The first of some rows of which there is always one.
pub(super) fn first(rows: &[QueryResult]) -> Result<&QueryResult, Error> {
    let missing = || DbErr::RecordNotFound("the row asked for".to_owned());
    Ok(rows.first().ok_or_else(missing)?)
}
