//! Delays writes whose result no later step of the transaction needs. On PostgreSQL such writes are
//! kept back and sent as one statement together with the next write that has a result, so that they
//! need no round trip of their own. They are always sent before any other statement and before
//! COMMIT, so no statement can miss an earlier write. On SQLite there are no round trips, and the
//! writes run at once.

use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement, Value, Values};

use super::Transaction;
use crate::store::engine::dialect::Dialect;

/// How many rows a write must affect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Affects {
    /// Any number. An INSERT fails by itself if it does not insert its row.
    Any,
    /// One row. Otherwise the transaction fails with [`DbErr::RecordNotUpdated`].
    One,
}

/// A delayed write.
#[derive(Debug)]
pub(super) struct Write {
    statement: Statement,
    affects: Affects,
}

impl Transaction {
    /// Runs an INSERT, UPDATE or DELETE without RETURNING. On PostgreSQL, it may be delayed until
    /// the next statement or COMMIT, which then reports its error.
    pub async fn write(&self, statement: Statement, affects: Affects) -> Result<(), DbErr> {
        self.require_intact()?;
        if self.dialect == Dialect::Postgres {
            self.kept().push(Write { statement, affects });
            return Ok(());
        }
        let rows = self.execute_raw(statement).await?.rows_affected();
        if affects == Affects::One && rows != 1 {
            return self.note(Err(DbErr::RecordNotUpdated));
        }
        Ok(())
    }

    /// Runs a write that ends with a RETURNING clause, together with the writes that were kept
    /// back. The write must not depend on them, because within one statement no write sees the
    /// others.
    pub async fn write_returning(
        &self,
        statement: Statement,
    ) -> Result<Option<QueryResult>, DbErr> {
        self.require_intact()?;
        let writes = std::mem::take(&mut *self.kept());
        if writes.is_empty() {
            return self.query_one_raw(statement).await;
        }
        let sql = format!("{}, {} AS intact", statement.sql, intact(&writes));
        let row = self
            .query_one_raw(merged(writes, Statement { sql, ..statement }))
            .await?;
        if let Some(row) = &row {
            self.note(require_intact_writes(row))?;
        }
        Ok(row)
    }

    /// Runs a write together with the writes that were kept back. The write must not depend on
    /// them. Returns how many rows this write affected.
    pub async fn write_counting(&self, statement: Statement) -> Result<u64, DbErr> {
        self.require_intact()?;
        let writes = std::mem::take(&mut *self.kept());
        if writes.iter().any(|write| write.affects == Affects::One) {
            self.send(writes).await?;
            return Ok(self.execute_raw(statement).await?.rows_affected());
        }
        let statement = merged(writes, statement);
        Ok(self.execute_raw(statement).await?.rows_affected())
    }

    /// Sends the delayed writes.
    pub(super) async fn flush(&self) -> Result<(), DbErr> {
        let writes = std::mem::take(&mut *self.kept());
        self.send(writes).await
    }

    async fn send(&self, writes: Vec<Write>) -> Result<(), DbErr> {
        if writes.is_empty() {
            return Ok(());
        }
        let select = format!("SELECT {} AS intact", intact(&writes));
        let select = Statement::from_string(Dialect::Postgres.backend(), select);
        let select = merged(writes, select);
        let row = self
            .connection
            .lock()
            .await
            .pooled()
            .query_one(select)
            .await;
        let row = self.note(row)?.ok_or(DbErr::RecordNotUpdated);
        self.note(row.and_then(|row| require_intact_writes(&row)))
    }
}

fn require_intact_writes(row: &QueryResult) -> Result<(), DbErr> {
    if row.try_get("", "intact")? {
        Ok(())
    } else {
        Err(DbErr::RecordNotUpdated)
    }
}

/// Returns an SQL expression that is true if each write has affected the required number of rows.
fn intact(writes: &[Write]) -> String {
    let ones = (0..).zip(writes);
    let ones = ones.filter(|(_, write)| write.affects == Affects::One);
    let each: Vec<String> = ones
        .map(|(at, _)| format!("(SELECT count(*) FROM w{at}) = 1"))
        .collect();
    if each.is_empty() {
        "true".to_owned()
    } else {
        each.join(" AND ")
    }
}

/// Returns a single statement that runs the writes and the last statement.
fn merged(writes: Vec<Write>, last: Statement) -> Statement {
    if writes.is_empty() {
        return last;
    }
    let mut values: Vec<Value> = Vec::new();
    let mut parts = Vec::with_capacity(writes.len());
    for (at, Write { statement, affects }) in writes.into_iter().enumerate() {
        let counted = match affects {
            Affects::Any => "",
            Affects::One => " RETURNING 1",
        };
        let sql = shifted(&statement.sql, values.len());
        parts.push(format!("w{at} AS ({sql}{counted})"));
        values.extend(statement.values.into_iter().flat_map(|Values(all)| all));
    }
    let sql = shifted(&last.sql, values.len());
    values.extend(last.values.into_iter().flat_map(|Values(all)| all));
    let sql = format!("WITH {} {sql}", parts.join(", "));
    Statement::from_sql_and_values(last.db_backend, sql, values)
}

/// Adds `by` to the number of each parameter. Values are always parameters, so a statement contains
/// no other dollar signs.
fn shifted(sql: &str, by: usize) -> String {
    let mut parts = sql.split('$');
    let mut shifted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let number: usize = number.parse().unwrap_or_default();
        shifted.push('$');
        shifted.push_str(&(number + by).to_string());
        shifted.push_str(rest);
    }
    shifted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(sql: &str, values: &[i64]) -> Statement {
        let values = values.iter().copied().map(Value::from);
        Statement::from_sql_and_values(Dialect::Postgres.backend(), sql, values)
    }

    #[test]
    fn merged_writes_keep_their_values() {
        let writes = vec![
            Write {
                statement: statement("INSERT INTO a VALUES ($1, $2)", &[1, 2]),
                affects: Affects::Any,
            },
            Write {
                statement: statement("UPDATE b SET c = $1 WHERE d = $10", &[3, 4]),
                affects: Affects::One,
            },
        ];
        assert_eq!(intact(&writes), "(SELECT count(*) FROM w1) = 1");
        assert_eq!(intact(&writes[..1]), "true");
        let one = merged(writes, statement("INSERT INTO e VALUES ($1)", &[5]));
        assert_eq!(
            one.sql,
            "WITH w0 AS (INSERT INTO a VALUES ($1, $2)), \
             w1 AS (UPDATE b SET c = $3 WHERE d = $12 RETURNING 1) INSERT INTO e VALUES ($5)"
        );
        let values = [1_i64, 2, 3, 4, 5].map(Value::from);
        assert_eq!(one.values.unwrap().0, values);
    }
}
