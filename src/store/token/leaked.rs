//! Handles a secret that was reported as leaked. If the secret is still valid, its token is
//! revoked. If it is the secret of a session, only that session is ended.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    incident::{FoundAt, LeakOutcome, reason_of_leak},
    refusal::Refusal,
    revision::Revision,
    timestamp::Timestamp,
    token::{Token, TokenState},
};
use crate::store::{
    Error, PresentedSecret, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::token_secret,
    record::Proof,
    session::live,
    token::change::{UpdateGuard, update_token},
    token::rows::corrupt,
};
use stacktoken_core::facts_cache::Subject;

impl Store {
    /// Revokes the token of a secret, unless the token is dead or the secret has ended. Records the
    /// report in the audit log in any case. If the secret has ended only according to the clock,
    /// its end is recorded. The end is then final, even if another clock is behind.
    ///
    /// # Errors
    /// Returns [`Error`] if the report could not be processed. The caller must then repeat it.
    pub async fn report_leaked(
        &self,
        call: &Call,
        presented: PresentedSecret,
        found_at: Option<&FoundAt>,
    ) -> Result<(LeakOutcome, Option<Revision>), Error> {
        change_tx!(self, (presented.stack), "report_leaked", |tx| {
            let stack = self.locked(tx, presented.stack).await?;
            let (uid, about) = (presented.token, (&stack, Some(presented.token)));
            let token = match self.token_to_change(tx, &stack, uid).await {
                // The token was purged after the secret was looked up.
                Err(Error::Refused(Refusal::TokenNotFound)) => {
                    return Ok(Proof::nothing_changed().with((LeakOutcome::Unknown, None)));
                }
                found => found?,
            };
            let removed = stack.row.removed_at.is_some();
            let mut record = Record::default();
            let (outcome, kind) = if removed || token.state(stack.at) != TokenState::Active {
                (LeakOutcome::Dead, None)
            } else if presented.session {
                if live::end_session(tx, &presented.digest, stack.at).await? {
                    (LeakOutcome::SessionEnded, Some(Kind::SessionsEnded))
                } else {
                    (LeakOutcome::Dead, None)
                }
            } else if end_if_over(tx, presented, stack.at).await? {
                (LeakOutcome::Superseded, Some(Kind::Superseded))
            } else {
                let revoked = revoke(tx, token.clone(), (call, stack.at), found_at).await?;
                record = Record::changed(&token, &revoked);
                (LeakOutcome::Revoked, Some(Kind::Revoked))
            };
            let record = record.with(audit_details(presented, found_at, outcome));
            let action = AuditAction::TokenReportLeaked;
            let (revision, proof) = if let Some(kind) = kind {
                let both = (action, kind);
                let changed = self.record_change(tx, call, both, about, record);
                let (revision, proof) = changed.await?;
                (Some(revision), proof)
            } else {
                // As in `Proof::already_so`: another replica may have ended it.
                tx.touch(Subject::Token(uid));
                let recorded = self.record_call(tx, call, action, about, record);
                (None, recorded.await?)
            };
            Ok(proof.with((outcome, revision)))
        })
    }
}

/// Returns whether the secret has ended although its token is live. In that case, also records the
/// end, which makes it final.
async fn end_if_over(
    tx: &Transaction,
    presented: PresentedSecret,
    now: Timestamp,
) -> Result<bool, Error> {
    let digest = presented.digest.as_bytes().to_vec();
    let row = token_secret::Entity::find_by_id(digest.clone())
        .one(tx)
        .await?;
    let uid = presented.token.into_untyped_uuid();
    let row = row.ok_or_else(|| corrupt("token_secrets", "digest", uid))?;
    let over = row.superseded_at.is_some() || row.ends_at.is_some_and(|at| at <= now.as_micros());
    if over {
        token_secret::Entity::update_many()
            .col_expr(token_secret::Column::SupersededAt, now.as_micros().into())
            .filter(token_secret::Column::Digest.eq(digest))
            .filter(token_secret::Column::SupersededAt.is_null())
            .exec(tx)
            .await?;
    }
    Ok(over)
}

async fn revoke(
    tx: &Transaction,
    token: Token,
    (call, now): (&Call, Timestamp),
    found_at: Option<&FoundAt>,
) -> Result<Token, Error> {
    let uid = token.uid.into_untyped_uuid();
    let reason = reason_of_leak(found_at);
    let reason = reason.map_err(|_| corrupt("tokens", "revoke_reason", uid))?;
    let revoked = token.revoke(call.caller.actor.clone(), reason, now);
    update_token(tx, &revoked, UpdateGuard::Live).await?;
    Ok(revoked)
}

fn audit_details(
    presented: PresentedSecret,
    found_at: Option<&FoundAt>,
    outcome: LeakOutcome,
) -> Details {
    let mut details = Details::from([
        ("generation".into(), presented.generation.to_string()),
        ("outcome".into(), outcome.name().into()),
    ]);
    if let Some(url) = found_at {
        details.insert("url".into(), url.as_str().into());
    }
    details
}
