//! When tokens were last used, and by which services.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    DatabaseTransaction, EntityTrait as _, Set,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};

use super::{Error, entity::token_usage};
use crate::domain::{caller::Actor, id::TokenUid, timestamp::Timestamp};

/// Notes that a service used a token; what is on record never goes back.
pub(super) async fn note(
    tx: &DatabaseTransaction,
    token: TokenUid,
    service: &Actor,
    at: Timestamp,
) -> Result<(), Error> {
    use token_usage::Column;
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
