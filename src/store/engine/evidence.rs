//! Runs the reads that a verdict or the change log relies on. Each must see everything that was
//! committed before it. Under REPEATABLE READ, a statement that had to wait while `ALTER TABLE`
//! rewrote a table would find the table empty. So if the default isolation level of the database,
//! the role or the session is not READ COMMITTED, the read runs in a transaction that sets this
//! level. The level cannot be set when connecting, because poolers refuse start-up options.

use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, QueryResult, Statement, Value};

use crate::store::{
    Error, Store,
    engine::transaction::{Access, Transaction},
};

/// Remembers whether any session had a default isolation level other than READ COMMITTED.
#[derive(Debug, Default)]
pub(in crate::store) struct Isolation {
    other: AtomicBool,
}

impl Store {
    /// Runs a statement that selects the origin columns and always returns a row. Returns its rows.
    pub(in crate::store) async fn read_evidence(
        &self,
        pool: &DatabaseConnection,
        sql: &str,
        values: impl Fn() -> Vec<Value>,
    ) -> Result<Vec<QueryResult>, Error> {
        let statement = || Statement::from_sql_and_values(self.backend(), sql, values());
        if self.isolation.other.load(Ordering::Relaxed) {
            return read_committed(pool, statement()).await;
        }
        let rows = pool.query_all_raw(statement()).await?;
        if first(&rows)?.try_get("", "up_to_date")? {
            return Ok(rows);
        }
        if !self.isolation.other.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "default_transaction_isolation is not read committed: each lookup takes a \
                 transaction, and two more round trips"
            );
        }
        read_committed(pool, statement()).await
    }
}

async fn read_committed(
    pool: &DatabaseConnection,
    statement: Statement,
) -> Result<Vec<QueryResult>, Error> {
    let tx = Transaction::begin(pool, Access::UpToDate).await?;
    let rows = tx.query_all_raw(statement).await;
    // The rows are valid even if the rollback fails. The connection is closed in that case.
    let _ = tx.rollback().await;
    Ok(rows?)
}

/// Returns the first row of a statement that always returns at least one row.
pub(in crate::store) fn first(rows: &[QueryResult]) -> Result<&QueryResult, Error> {
    let missing = || DbErr::RecordNotFound("the row asked for".to_owned());
    Ok(rows.first().ok_or_else(missing)?)
}
