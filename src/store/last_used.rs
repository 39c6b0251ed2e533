//! Records when tokens were last used, and by which services.

use std::sync::Arc;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _, QueryTrait as _,
    Set, Statement,
    sea_query::{Expr, ExprTrait as _, Func, OnConflict, SimpleExpr},
};

use crate::domain::{caller::Actor, id::TokenUid, timestamp::Timestamp};
use crate::store::{
    Error, Store,
    engine::dialect::PerEngine,
    engine::transaction::{Affects, Transaction},
    entity::{
        token,
        token_usage::{self, Column},
    },
};

/// A use of a token. A token counts as used when a service gets the answer that the token is
/// active.
#[derive(Clone, Debug)]
pub struct Use {
    /// The token that was used.
    pub token: TokenUid,
    /// The service that used the token.
    pub service: Arc<Actor>,
    /// When the service got the answer that the token is active.
    pub at: Timestamp,
}

/// Records uses. The statement is the same for any number of uses, so only one text is prepared. A
/// recorded time is never replaced by an earlier one, and uses of purged tokens are skipped. Rows
/// are written in key order, so that two replicas that write the same rows cannot deadlock.
const RECORD: PerEngine = PerEngine {
    postgres: "\
    INSERT INTO token_usage (token_uid, service_issuer, service_subject, last_used_at) \
    SELECT t.uid, u.used ->> 1, u.used ->> 2, (u.used ->> 3)::bigint \
    FROM jsonb_array_elements($1::jsonb) AS u (used) \
    JOIN tokens AS t ON t.uid = (u.used ->> 0)::uuid \
    ORDER BY 1, 2, 3 \
    ON CONFLICT (token_uid, service_issuer, service_subject) \
    DO UPDATE SET last_used_at = excluded.last_used_at \
    WHERE token_usage.last_used_at < excluded.last_used_at",
    sqlite: "\
    INSERT INTO token_usage (token_uid, service_issuer, service_subject, last_used_at) \
    SELECT t.uid, u.value ->> 1, u.value ->> 2, u.value ->> 3 \
    FROM json_each($1) AS u CROSS JOIN tokens AS t ON t.uid = unhex(u.value ->> 0) \
    WHERE true ORDER BY 1, 2, 3 \
    ON CONFLICT (token_uid, service_issuer, service_subject) \
    DO UPDATE SET last_used_at = excluded.last_used_at \
    WHERE token_usage.last_used_at < excluded.last_used_at",
};

impl Store {
    /// Records many uses with one statement. Each pair of token and service may occur only once.
    ///
    /// # Errors
    /// Returns [`Error`] if none of the uses was recorded.
    pub async fn record_uses(&self, uses: &[Use]) -> Result<(), Error> {
        let rows: Vec<_> = uses.iter().map(row_of).collect();
        let rows = serde_json::to_string(&rows).unwrap_or_default();
        let sql = self.dialect().pick(RECORD);
        write_tx!(self, "record_uses", |tx| {
            let rows = [rows.as_str().into()];
            let statement = Statement::from_sql_and_values(self.backend(), sql, rows);
            tx.execute_raw(statement).await?;
            Ok(())
        })
    }
}

fn row_of(used: &Use) -> (String, &str, &str, i64) {
    let token = used.token.as_untyped_uuid().simple().to_string();
    let Actor {
        issuer, subject, ..
    } = used.service.as_ref();
    (token, issuer, subject, used.at.as_micros())
}

/// Returns an SQL expression for the time at which any service last used the token of the current
/// row. It is null if the token was never used.
pub(super) fn last_used() -> SimpleExpr {
    let column = |column| Expr::col((token_usage::Entity, column));
    let of_this = column(Column::TokenUid).equals((token::Entity, token::Column::Uid));
    let latest = token_usage::Entity::find()
        .select_only()
        .expr(column(Column::LastUsedAt).max())
        .filter(of_this)
        .into_query();
    latest.into()
}

/// Returns the condition for tokens that have been unused since this instant: last used before it,
/// or issued before it and never used. A token that was issued later never matches.
pub(super) fn unused_since(at: Timestamp) -> SimpleExpr {
    let issued = Expr::col((token::Entity, token::Column::IssuedAt));
    Expr::from(Func::coalesce([last_used(), issued])).lt(at.as_micros())
}

/// Records that a service used a token. A recorded time is never replaced by an earlier one.
pub(super) async fn note(
    tx: &Transaction,
    token: TokenUid,
    service: &Actor,
    at: Timestamp,
) -> Result<(), Error> {
    let row = token_usage::ActiveModel {
        token_uid: Set(token.into_untyped_uuid()),
        service_issuer: Set(service.issuer.clone()),
        service_subject: Set(service.subject.clone()),
        last_used_at: Set(at.as_micros()),
    };
    let known = Expr::col((token_usage::Entity, Column::LastUsedAt));
    let newer = OnConflict::columns([
        Column::TokenUid,
        Column::ServiceIssuer,
        Column::ServiceSubject,
    ])
    .update_column(Column::LastUsedAt)
    .action_and_where(known.lt(at.as_micros()))
    .to_owned();
    let row = token_usage::Entity::insert(row).on_conflict(newer);
    let row = row.build(tx.get_database_backend());
    Ok(tx.write(row, Affects::Any).await?)
}
