//! Counts live sessions, records the first use of their secrets, and ends them.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    sea_query::Expr,
};

use crate::domain::{id::TokenUid, secret::Digest, timestamp::Timestamp};
use crate::store::{
    Error, engine::transaction::Transaction, entity::session, token::rows::corrupt,
};

/// Returns the condition for sessions that are live at this instant, provided that their token is
/// live.
pub(in crate::store) fn is_live(now: Timestamp) -> Condition {
    Condition::all()
        .add(session::Column::EndedAt.is_null())
        .add(session::Column::ExpiresAt.gt(now.as_micros()))
}

fn of_token(token: TokenUid, subject: Option<&str>, now: Timestamp) -> Condition {
    Condition::all()
        .add(session::Column::TokenUid.eq(token.into_untyped_uuid()))
        .add_option(subject.map(|subject| session::Column::Subject.eq(subject)))
        .add(is_live(now))
}

fn with_digest(digest: &Digest, now: Timestamp) -> Condition {
    Condition::all()
        .add(session::Column::Digest.eq(digest.as_bytes().to_vec()))
        .add(is_live(now))
}

/// Counts the live sessions of a token, or only those of one workload.
pub(in crate::store) async fn count_live(
    tx: &Transaction,
    token: TokenUid,
    subject: Option<&str>,
    now: Timestamp,
) -> Result<u32, Error> {
    let live = session::Entity::find().filter(of_token(token, subject, now));
    Ok(u32::try_from(live.count(tx).await?).unwrap_or(u32::MAX))
}

/// Ends the live sessions of a token, or only those of one workload. Returns the number of sessions
/// that were ended.
pub(in crate::store) async fn end_sessions(
    tx: &Transaction,
    token: TokenUid,
    subject: Option<&str>,
    now: Timestamp,
) -> Result<u32, Error> {
    end(tx, of_token(token, subject, now), now).await
}

/// Ends the session with this secret. Returns whether it was live.
pub(in crate::store) async fn end_session(
    tx: &Transaction,
    digest: &Digest,
    now: Timestamp,
) -> Result<bool, Error> {
    let ended = end(tx, with_digest(digest, now), now).await?;
    Ok(ended == 1)
}

/// What the audit says about a session that was ended by its secret.
pub(in crate::store) struct SessionRow {
    /// The workload that started the session.
    pub subject: String,
    /// When the session was started.
    pub issued_at: Timestamp,
    /// When the session would have ended by itself.
    pub expires_at: Timestamp,
}

/// Returns the session with this secret, live or not. `None` if there is no such session.
pub(in crate::store) async fn find_session(
    tx: &Transaction,
    digest: &Digest,
) -> Result<Option<SessionRow>, Error> {
    let found = session::Entity::find_by_id(digest.as_bytes().to_vec());
    let Some(row) = found.one(tx).await? else {
        return Ok(None);
    };
    let instant = |column, micros| {
        let instant = Timestamp::from_micros(micros);
        instant.ok_or_else(|| corrupt("sessions", column, row.token_uid))
    };
    Ok(Some(SessionRow {
        issued_at: instant("issued_at", row.issued_at)?,
        expires_at: instant("expires_at", row.expires_at)?,
        subject: row.subject.clone(),
    }))
}

async fn end(tx: &Transaction, which: Condition, now: Timestamp) -> Result<u32, Error> {
    let done = session::Entity::update_many()
        .col_expr(session::Column::EndedAt, now.as_micros().into())
        .filter(which)
        .exec(tx)
        .await?;
    Ok(u32::try_from(done.rows_affected).unwrap_or(u32::MAX))
}

/// Records the first use of the secret of a session, if the session is live and `token_lives` is
/// true. Returns whether this was the first use.
pub(in crate::store) async fn note_first_use(
    tx: &Transaction,
    digest: &Digest,
    token_lives: Expr,
    now: Timestamp,
) -> Result<bool, Error> {
    let done = session::Entity::update_many()
        .col_expr(session::Column::FirstUsedAt, now.as_micros().into())
        .filter(with_digest(digest, now))
        .filter(session::Column::FirstUsedAt.is_null())
        .filter(token_lives)
        .exec(tx)
        .await?;
    Ok(done.rows_affected == 1)
}
