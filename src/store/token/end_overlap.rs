//! Ends the overlap of a rotation. The former secret ends at once, and no new secret is created.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    etag::Target,
    id::TokenUid,
    revision::Revision,
    timestamp::Timestamp,
    token::Token,
};
use crate::store::{
    Error, Store, audit::append::Record, change_log::append::Kind,
    engine::transaction::Transaction, entity::request, record::Proof, stack::access::RemovedStacks,
    token::secrets,
};
use stacktoken_core::facts_cache::Subject;

/// A token after a call that may have found nothing to change.
#[derive(Debug)]
pub struct MaybeChanged {
    /// The token after the call.
    pub token: Token,
    /// Whether the call changed the token. If not, nothing was written.
    pub changed: bool,
}

impl MaybeChanged {
    pub(in crate::store) const fn changed(token: Token) -> Self {
        Self {
            token,
            changed: true,
        }
    }

    pub(in crate::store) const fn unchanged(token: Token) -> Self {
        Self {
            token,
            changed: false,
        }
    }
}

/// Updates the end of the overlap in the stored result of the last rotation, which a retry with the
/// same request id returns.
async fn note_end(tx: &Transaction, uid: TokenUid, now: Timestamp) -> Result<(), Error> {
    request::Entity::update_many()
        .col_expr(request::Column::OverlapEndsAt, now.as_micros().into())
        .filter(request::Column::TokenUid.eq(uid.into_untyped_uuid()))
        .filter(request::Column::OverlapEndsAt.gt(now.as_micros()))
        .exec(tx)
        .await?;
    Ok(())
}

impl Store {
    /// Ends the former secret of a token that was rotated. If the token has only one live secret,
    /// nothing is changed or recorded, and the current revision is returned. Works while the stack
    /// is suspended, because it only takes access away.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`], [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`], or
    /// another [`Error`] if the call is refused or the store fails.
    ///
    /// [`Refusal::EtagMismatch`]: crate::domain::refusal::Refusal::EtagMismatch
    /// [`Refusal::TokenRevoked`]: crate::domain::refusal::Refusal::TokenRevoked
    /// [`Refusal::TokenExpired`]: crate::domain::refusal::Refusal::TokenExpired
    pub async fn end_overlap(
        &self,
        call: &Call,
        target: &Target,
    ) -> Result<(MaybeChanged, Revision), Error> {
        change_tx!(self, (call.mode, &target.stack_key), "end_overlap", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, &target.stack_key, RemovedStacks::Exclude)
                .await?;
            let uid = target.uid;
            let before = self.target_to_change(tx, &stack, target).await?;
            before.require_live(stack.at)?;
            before.require_own_secret()?;
            let (token, ended) = secrets::end_former(tx, before.clone(), stack.at).await?;
            let Some(generation) = ended else {
                let revision = self.current_revision(tx).await?;
                let unchanged = MaybeChanged::unchanged(token);
                let proof = Proof::already_so(tx, Subject::Token(uid));
                return Ok(proof.with((unchanged, revision)));
            };
            note_end(tx, uid, stack.at).await?;
            let details = Details::from([("ended".into(), generation.to_string())]);
            let record = Record::changed(&before, &token).with(details);
            let about = (&stack, Some(uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenEndOverlap, Kind::Superseded),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((MaybeChanged::changed(token), revision)))
        })
    }
}
