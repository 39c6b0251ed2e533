//! Stores which single-use assertions were exchanged. An assertion is recorded only together with
//! its session, so a refused exchange does not use it up.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, DbErr, EntityTrait as _, QueryFilter as _, Set,
    sea_query::OnConflict,
};

use crate::domain::{
    id::TokenUid,
    request::{Fingerprint, RETRY_FOR},
    timestamp::Timestamp,
};
use crate::store::{
    Error,
    engine::transaction::Transaction,
    entity::{assertion, session},
    session::live::is_live,
    token::secrets::NewSecret,
};

/// An assertion that is valid for only one exchange.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse {
    /// A hash of the assertion's issuer and id.
    pub key: Fingerprint,
    /// A fingerprint of the assertion's claims and of the request.
    pub content: Fingerprint,
    /// Until when the assertion must be remembered, so that it cannot be exchanged twice.
    pub expires_at: Timestamp,
}

impl assertion::Model {
    /// Returns whether the assertion was exchanged with the same claims and by the same request.
    pub fn is_about(&self, once: &SingleUse) -> bool {
        self.content == once.content.as_bytes().as_slice()
    }
}

/// Returns the stored row of an assertion that was exchanged before.
pub(in crate::store) async fn find(
    tx: &Transaction,
    key: Fingerprint,
) -> Result<Option<assertion::Model>, Error> {
    let key = key.as_bytes().to_vec();
    Ok(assertion::Entity::find_by_id(key).one(tx).await?)
}

/// Records an assertion with the session that it was exchanged for. Returns `false` if a concurrent
/// exchange for a token of another stack has recorded it.
pub(in crate::store) async fn record(
    tx: &Transaction,
    once: &SingleUse,
    secret: &NewSecret,
    now: Timestamp,
) -> Result<bool, Error> {
    let row = assertion::ActiveModel {
        key: Set(once.key.as_bytes().to_vec()),
        content: Set(once.content.as_bytes().to_vec()),
        session_digest: Set(secret.digest.as_bytes().to_vec()),
        first_seen_at: Set(now.as_micros()),
        expires_at: Set(once.expires_at.as_micros()),
    };
    let other = OnConflict::column(assertion::Column::Key)
        .do_nothing()
        .to_owned();
    let inserted = assertion::Entity::insert(row)
        .on_conflict(other)
        .exec_without_returning(tx)
        .await?;
    Ok(inserted == 1)
}

/// Returns the session that an identical request with the same assertion continues, because the
/// response to the first request may have been lost. Such a session is live, its secret was never
/// used, and the assertion was first exchanged at most [`RETRY_FOR`] ago.
pub(in crate::store) async fn session_to_resume(
    tx: &Transaction,
    seen: &assertion::Model,
    token: TokenUid,
    now: Timestamp,
) -> Result<Option<session::Model>, Error> {
    let age = now.as_micros().saturating_sub(seen.first_seen_at);
    if u128::try_from(age).is_ok_and(|age| age > RETRY_FOR.as_micros()) {
        return Ok(None);
    }
    let session = session::Entity::find_by_id(seen.session_digest.clone())
        .filter(session::Column::TokenUid.eq(token.into_untyped_uuid()))
        .filter(is_live(now))
        .filter(session::Column::FirstUsedAt.is_null());
    Ok(session.one(tx).await?)
}

/// Replaces the secret of the session of an assertion. The former secret is no longer recognized.
pub(in crate::store) async fn renew(
    tx: &Transaction,
    seen: assertion::Model,
    secret: &NewSecret,
) -> Result<(), Error> {
    let digest = secret.digest.as_bytes().to_vec();
    // A first use cannot race with this update, because it is recorded under the same lock.
    let renewed = session::Entity::update_many()
        .col_expr(session::Column::Digest, digest.clone().into())
        .filter(session::Column::Digest.eq(seen.session_digest.clone()))
        .filter(session::Column::FirstUsedAt.is_null())
        .exec(tx)
        .await?;
    if renewed.rows_affected != 1 {
        return Err(Error::Conflict(DbErr::RecordNotUpdated));
    }
    let mut seen = assertion::ActiveModel::from(seen);
    seen.session_digest = Set(digest);
    seen.update(tx).await?;
    Ok(())
}
