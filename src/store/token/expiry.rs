//! Finds tokens that expire soon. Counts the tokens that expire within a number of days, and
//! returns those that were not yet reported. Each report is recorded in the row of the token, so
//! that all replicas together report it only once.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbErr, EntityTrait as _, QueryFilter as _,
    Statement, sea_query::Expr,
};
use uuid::Uuid;

use crate::domain::timestamp::Timestamp;
use crate::store::{
    Error, Store, engine::dialect::PerEngine, engine::transaction::Transaction, entity::token,
    token::rows::corrupt,
};

/// The numbers of days to look ahead, in ascending order.
pub const DAYS: [i32; 3] = [1, 7, 30];

/// A token that expires soon and was not yet reported for this number of days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The token that expires.
    pub token_uid: Uuid,
    /// The API key of the token's stack.
    pub stack_api_key: String,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// The smallest of [`DAYS`] within which the token expires.
    pub days: i32,
}

/// Selects live tokens that expire within a period. Tokens of removed stacks are left out.
const SOON: &str = "FROM tokens t JOIN stacks k ON k.uid = t.stack_uid \
    WHERE t.revoked_at IS NULL AND t.ended_at IS NULL AND k.removed_at IS NULL \
    AND t.expires_at > $1 AND t.expires_at <= $2";

fn end(now: Timestamp, days: i32) -> i64 {
    let days = u64::try_from(days).unwrap_or_default();
    now.plus(std::time::Duration::from_hours(24 * days))
        .as_micros()
}

/// Skips tokens that are being changed.
const SKIP_LOCKED_TOKENS: PerEngine = PerEngine::on_postgres(" FOR UPDATE OF t SKIP LOCKED");

impl Store {
    /// Counts the live tokens that expire within each of [`DAYS`]. A longer period includes the
    /// shorter ones.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be read.
    pub async fn count_expiring(&self, now: Timestamp) -> Result<[i64; DAYS.len()], Error> {
        let operation = self.begin_operation("count_expiring");
        let [first, second, third] = DAYS.map(|days| end(now, days));
        let sql = format!(
            "SELECT COALESCE(SUM(CASE WHEN t.expires_at <= $3 THEN 1 ELSE 0 END), 0) AS first, \
             COALESCE(SUM(CASE WHEN t.expires_at <= $4 THEN 1 ELSE 0 END), 0) AS second, \
             COUNT(*) AS third {SOON}"
        );
        let values = [now.as_micros(), third, first, second].map(Into::into);
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let read = self.pools.load_full().reader.query_one_raw(statement).await;
        let counted = read.and_then(|row| {
            let row = row.ok_or_else(|| DbErr::RecordNotFound("a count".to_owned()))?;
            let count = |name| row.try_get::<i64>("", name);
            Ok([count("first")?, count("second")?, count("third")?])
        });
        let counted = counted.map_err(Error::from);
        operation.end(counted.as_ref().err().and_then(Error::kind));
        counted
    }

    /// Returns at most `most` tokens that expire within one of [`DAYS`] and were not yet reported
    /// for this number of days. Marks these tokens as reported. If the process ends right after
    /// that, they are never reported, but no token is reported twice.
    ///
    /// # Errors
    /// Returns [`Error`] if no token was marked.
    pub async fn report_expiring(
        &self,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<Expiring>, Error> {
        write_tx!(self, "tell_expiring", |tx| {
            let mut reported = Vec::new();
            for days in DAYS {
                let room = most.saturating_sub(reported.len());
                let found = self.find_unreported(tx, now, (days, room)).await?;
                record_reported(tx, &found, days).await?;
                reported.extend(found);
            }
            Ok(reported)
        })
    }

    /// Returns tokens that were not yet reported for this number of days. Skips tokens that are
    /// being changed. The next run checks them again.
    async fn find_unreported(
        &self,
        tx: &Transaction,
        now: Timestamp,
        (days, most): (i32, usize),
    ) -> Result<Vec<Expiring>, Error> {
        let lock = self.dialect().pick(SKIP_LOCKED_TOKENS);
        let sql = format!(
            "SELECT t.uid, t.expires_at, k.key {SOON} \
             AND (t.expiry_told IS NULL OR t.expiry_told > $3) \
             ORDER BY t.expires_at LIMIT $4{lock}"
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let values = [
            now.as_micros().into(),
            end(now, days).into(),
            days.into(),
            most.into(),
        ];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let rows = tx.query_all_raw(statement).await?;
        let expiring = |row: sea_orm::QueryResult| {
            let token_uid = row.try_get("", "uid")?;
            let expires_at = Timestamp::from_micros(row.try_get("", "expires_at")?);
            Ok(Expiring {
                token_uid,
                stack_api_key: row.try_get("", "key")?,
                expires_at: expires_at.ok_or_else(|| corrupt("tokens", "expires_at", token_uid))?,
                days,
            })
        };
        rows.into_iter().map(expiring).collect()
    }
}

async fn record_reported(tx: &Transaction, reported: &[Expiring], days: i32) -> Result<(), Error> {
    if reported.is_empty() {
        return Ok(());
    }
    let later = Condition::any()
        .add(token::Column::ExpiryTold.is_null())
        .add(token::Column::ExpiryTold.gt(days));
    token::Entity::update_many()
        .col_expr(token::Column::ExpiryTold, Expr::value(days))
        .filter(token::Column::Uid.is_in(reported.iter().map(|token| token.token_uid)))
        .filter(later)
        .exec(tx)
        .await?;
    Ok(())
}
