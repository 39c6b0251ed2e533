//! The secrets of a token. Adds the first secret and further ones, and ends earlier ones. One or
//! two secrets are valid at a time. Secrets that have ended are kept, so that a caller who presents
//! one is told why it is rejected.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QueryOrder as _, Set,
};

use crate::domain::{
    id::TokenUid,
    rotation::{Ending, Held, Plan},
    secret::Digest,
    timestamp::Timestamp,
    token::Token,
};
use crate::store::{
    Error,
    engine::transaction::Transaction,
    entity::{token, token_secret},
    token::rows::corrupt,
    token::state::neither_revoked_nor_ended,
};

/// What is stored of a secret.
pub struct Kept {
    /// The digest of the secret.
    pub digest: Digest,
    /// The last four characters of the secret.
    pub hint: String,
}

/// Stores a secret of a token.
pub(in crate::store) async fn keep(
    tx: &Transaction,
    (uid, generation): (TokenUid, u32),
    secret: &Kept,
    now: Timestamp,
) -> Result<(), Error> {
    let row = token_secret::ActiveModel {
        digest: Set(secret.digest.as_bytes().to_vec()),
        token_uid: Set(uid.into_untyped_uuid()),
        generation: Set(column(generation)),
        made_at: Set(now.as_micros()),
        until_first_use: Set(false),
        ..<token_secret::ActiveModel as Default>::default()
    };
    token_secret::Entity::insert(row)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// Adds a new secret to a live token.
pub(in crate::store) async fn renew(
    tx: &Transaction,
    before: Token,
    secret: &Kept,
    now: Timestamp,
) -> Result<Token, Error> {
    let after = before.renew(secret.hint.clone());
    keep(tx, (after.uid, after.generation), secret, now).await?;
    let uid = after.uid.into_untyped_uuid();
    let columns = token::ActiveModel {
        generation: Set(column(after.generation)),
        secret_hint: Set(after.secret_hint.clone()),
        ..<token::ActiveModel as Default>::default()
    };
    let done = token::Entity::update_many()
        .set(columns)
        .filter(token::Column::Uid.eq(uid))
        .filter(token::Column::Generation.eq(column(after.generation) - 1))
        .filter(neither_revoked_nor_ended())
        .exec(tx)
        .await?;
    match done.rows_affected {
        1 => Ok(after),
        // The stack is locked, so no other transaction can have changed the row. If the row does
        // not match, this is a bug.
        _ => Err(corrupt("tokens", "generation", uid)),
    }
}

/// Returns the valid secrets of a live token, oldest first.
pub(in crate::store) async fn live(
    tx: &Transaction,
    uid: TokenUid,
    now: Timestamp,
) -> Result<Vec<Held>, Error> {
    let rows = token_secret::Entity::find()
        .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(not_ended(now))
        .order_by_asc(token_secret::Column::Generation)
        .all(tx)
        .await?;
    rows.iter().map(held).collect()
}

/// Carries out the plan of a rotation. Records the end of all secrets that are not kept, including
/// those that have already expired by the clock. From now on their end is final for every replica.
pub(in crate::store) async fn carry_out(
    tx: &Transaction,
    uid: TokenUid,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), Error> {
    let mut ending = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
        .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(token_secret::Column::SupersededAt.is_null());
    if let Some((generation, ends)) = plan.kept {
        let kept = token_secret::Column::Generation.eq(column(generation));
        ending = ending.filter(kept.clone().not());
        token_secret::Entity::update_many()
            .col_expr(token_secret::Column::EndsAt, ends.at.as_micros().into())
            .col_expr(
                token_secret::Column::UntilFirstUse,
                ends.on_first_use.into(),
            )
            .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
            .filter(kept)
            .exec(tx)
            .await?;
    }
    ending.exec(tx).await?;
    Ok(())
}

/// Ends a secret that was never used. Returns whether it was still valid and unused. A first use
/// cannot race with this, because a first use is also written only while the secret is valid.
pub(in crate::store) async fn end_unused(
    tx: &Transaction,
    (uid, generation): (TokenUid, i32),
    now: Timestamp,
) -> Result<bool, Error> {
    let done = token_secret::Entity::update_many()
        .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
        .filter(token_secret::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(token_secret::Column::Generation.eq(generation))
        .filter(token_secret::Column::FirstUsedAt.is_null())
        .filter(not_ended(now))
        .exec(tx)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Returns the condition for secrets that are valid at this instant, provided that their token is
/// live.
pub(in crate::store) fn not_ended(now: Timestamp) -> Condition {
    let later = Condition::any()
        .add(token_secret::Column::EndsAt.is_null())
        .add(token_secret::Column::EndsAt.gt(now.as_micros()));
    Condition::all()
        .add(token_secret::Column::SupersededAt.is_null())
        .add(later)
}

/// Converts a generation to the type of its column.
pub(in crate::store) fn column(generation: u32) -> i32 {
    i32::try_from(generation).unwrap_or(i32::MAX)
}

fn held(row: &token_secret::Model) -> Result<Held, Error> {
    let wrong = |column| corrupt("token_secrets", column, row.token_uid);
    let ending = |micros| {
        let at = Timestamp::from_micros(micros).ok_or_else(|| wrong("ends_at"))?;
        Ok::<_, Error>(Ending {
            at,
            on_first_use: row.until_first_use,
        })
    };
    Ok(Held {
        generation: u32::try_from(row.generation).map_err(|_| wrong("generation"))?,
        used: row.first_used_at.is_some(),
        ending: row.ends_at.map(ending).transpose()?,
    })
}
