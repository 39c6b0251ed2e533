//! When tokens were last used, and by which services.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    DatabaseTransaction, EntityTrait as _, QueryFilter as _, QuerySelect as _, QueryTrait as _,
    Set,
    sea_query::{Expr, ExprTrait as _, Func, OnConflict, SimpleExpr},
};

use super::{
    Error,
    entity::{
        token,
        token_usage::{self, Column},
    },
};
use crate::domain::{caller::Actor, id::TokenUid, timestamp::Timestamp};

/// When the token of the row at hand was last used, by whichever service; null: never.
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

/// Which tokens nobody has used since this instant: last used before it, or issued before it
/// and never used. So one that was issued after it is never among them.
pub(super) fn unused_since(at: Timestamp) -> SimpleExpr {
    let issued = Expr::col((token::Entity, token::Column::IssuedAt));
    Expr::from(Func::coalesce([last_used(), issued])).lt(at.as_micros())
}

/// Notes that a service used a token; what is on record never goes back.
pub(super) async fn note(
    tx: &DatabaseTransaction,
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
    token_usage::Entity::insert(row)
        .on_conflict(newer)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}
