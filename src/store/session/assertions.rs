//! The assertions that were exchanged, if they are valid for one exchange only. An assertion is
//! recorded only together with its session, so a refused exchange does not use it up.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set,
    sea_query::OnConflict,
};

use crate::domain::{
    federation::Obstacle,
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

/// An assertion that is valid for one exchange only.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse {
    /// The hash of its issuer and its id.
    pub key: Fingerprint,
    /// The fingerprint of its claims and of the request.
    pub content: Fingerprint,
    /// When it need not be remembered any more.
    pub expires_at: Timestamp,
}

/// Returns whether the assertion was exchanged before.
pub(in crate::store) async fn was_exchanged(
    tx: &Transaction,
    key: Fingerprint,
) -> Result<bool, Error> {
    Ok(find(tx, key).await?.is_some())
}

async fn find(tx: &Transaction, key: Fingerprint) -> Result<Option<assertion::Model>, Error> {
    let key = key.as_bytes().to_vec();
    Ok(assertion::Entity::find_by_id(key).one(tx).await?)
}

/// Records an assertion with the session that it was exchanged for. Returns `false` if an exchange
/// for a token of another stack has recorded it in this instant.
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

/// Handles an assertion that was exchanged before. If its answer may have been lost, the session
/// gets another secret, and the former one is not recognized any more. That is so if the assertion
/// and the request are the same, the session lives, is not older than [`RETRY_FOR`], and its secret
/// was never used. Returns the session, or `None` if the assertion was not exchanged before.
pub(in crate::store) async fn replay(
    tx: &Transaction,
    (once, token): (&SingleUse, TokenUid),
    secret: &NewSecret,
    now: Timestamp,
) -> Result<Option<Result<session::Model, Obstacle>>, Error> {
    let Some(seen) = find(tx, once.key).await? else {
        return Ok(None);
    };
    let replayed = Ok(Some(Err(Obstacle::JwtReplayed)));
    let age = now.as_micros().saturating_sub(seen.first_seen_at);
    let recent = u128::try_from(age).is_ok_and(|age| age <= RETRY_FOR.as_micros());
    if !recent || seen.content != once.content.as_bytes().as_slice() {
        return replayed;
    }
    let session = session::Entity::find_by_id(seen.session_digest.clone())
        .filter(session::Column::TokenUid.eq(token.into_untyped_uuid()))
        .filter(is_live(now))
        .filter(session::Column::FirstUsedAt.is_null())
        .one(tx)
        .await?;
    let Some(mut session) = session else {
        return replayed;
    };
    let digest = secret.digest.as_bytes().to_vec();
    // A first use cannot race with this, because it is recorded under the same lock.
    session::Entity::update_many()
        .col_expr(session::Column::Digest, digest.clone().into())
        .filter(session::Column::Digest.eq(session.digest.clone()))
        .exec(tx)
        .await?;
    session.digest.clone_from(&digest);
    let mut seen = assertion::ActiveModel::from(seen);
    seen.session_digest = Set(digest);
    seen.update(tx).await?;
    Ok(Some(Ok(session)))
}
