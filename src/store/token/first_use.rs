//! The writes that a verdict causes, each at most once for a secret. The first use of a secret is
//! recorded before the response is sent. The first time that a superseded secret is presented is
//! recorded after the response.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    QueryTrait as _, sea_query::Expr,
};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::{StackUid, TokenUid},
    revision::Revision,
    secret::Digest,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::{token, token_secret},
    last_used,
    record::Proof,
    session::live,
    stack::access::LockedStack,
    token::secrets::{self, not_ended},
    token::state::still_live,
};
use stacktoken_core::facts_cache::Subject;

/// A presented secret, with its token and its stack.
#[derive(Clone, Copy)]
pub struct PresentedSecret {
    /// The digest of the secret.
    pub digest: Digest,
    /// The generation of the secret within its token.
    pub generation: u32,
    /// The token to which the secret belongs.
    pub token: TokenUid,
    /// The stack to which the token belongs.
    pub stack: StackUid,
    /// Whether the secret belongs to a session.
    pub session: bool,
}

impl Store {
    /// Records the first use of a secret. Does nothing if the secret was used before or is no
    /// longer valid. If a former secret was valid only until this first use, it ends in the same
    /// transaction. Only in that case, appends a row to the change log and returns the revision.
    ///
    /// # Errors
    /// Returns [`Error`] if the use could not be recorded. The caller must then not answer that the
    /// token is active.
    pub async fn record_first_use(
        &self,
        call: &Call,
        presented: PresentedSecret,
    ) -> Result<Option<Revision>, Error> {
        change_tx!(self, (presented.stack), "record_first_use", |tx| {
            // The stack is locked before any of its secrets, as in every change, so that
            // transactions cannot deadlock.
            let stack = self.locked(tx, presented.stack).await?;
            let row = &stack.row;
            let works = row.removed_at.is_none() && row.suspended_at.is_none();
            if !works {
                return Ok(Proof::nothing_changed().with(None));
            }
            if presented.session {
                let token_lives = is_live(presented, stack.at);
                let used = live::note_first_use(tx, &presented.digest, token_lives, stack.at);
                if used.await? {
                    tx.touch(Subject::Token(presented.token));
                    last_used::note(tx, presented.token, &call.caller.actor, stack.at).await?;
                }
                return Ok(Proof::nothing_changed().with(None));
            }
            let first = token_secret::Entity::update_many()
                .col_expr(
                    token_secret::Column::FirstUsedAt,
                    stack.at.as_micros().into(),
                )
                .filter(token_secret::Column::Digest.eq(presented.digest.as_bytes().to_vec()))
                .filter(token_secret::Column::FirstUsedAt.is_null())
                .filter(not_ended(stack.at))
                .filter(is_live(presented, stack.at))
                .exec(tx)
                .await?;
            if first.rows_affected == 0 {
                return Ok(Proof::nothing_changed().with(None));
            }
            // The cached facts about the token say that the secret is unused. So they are barred
            // from the cache even if no change log row follows.
            tx.touch(Subject::Token(presented.token));
            last_used::note(tx, presented.token, &call.caller.actor, stack.at).await?;
            let ended = token_secret::Entity::update_many()
                .col_expr(
                    token_secret::Column::SupersededAt,
                    stack.at.as_micros().into(),
                )
                .filter(token_secret::Column::TokenUid.eq(presented.token.into_untyped_uuid()))
                .filter(token_secret::Column::Generation.lt(secrets::column(presented.generation)))
                .filter(token_secret::Column::UntilFirstUse.eq(true))
                .filter(token_secret::Column::SupersededAt.is_null())
                .build(self.backend());
            if tx.write_counting(ended).await? == 0 {
                return Ok(Proof::nothing_changed().with(None));
            }
            let (revision, proof) = self
                .record_secret_change(tx, call, presented, (AuditAction::TokenFirstUse, &stack))
                .await?;
            Ok(proof.with(Some(revision)))
        })
    }

    /// Records the first time that a superseded secret is presented. If the secret has ended only
    /// according to the clock, its end is recorded as well. The end is then final, even if another
    /// clock is behind.
    ///
    /// # Errors
    /// Returns [`Error`] if the presentation could not be recorded.
    pub async fn record_superseded(
        &self,
        call: &Call,
        presented: PresentedSecret,
    ) -> Result<Option<Revision>, Error> {
        change_tx!(self, (presented.stack), "record_superseded", |tx| {
            let stack = self.locked(tx, presented.stack).await?;
            let digest = presented.digest.as_bytes().to_vec();
            let now = stack.at.as_micros();
            let this = token_secret::Column::Digest.eq(digest);
            // A replica whose clock is ahead may treat an overlap as ended before it has ended by
            // the clock that decides. The two clocks differ by at most the permitted skew.
            let latest = stack.at.plus(self.max_skew()).as_micros();
            let over = Condition::any()
                .add(token_secret::Column::SupersededAt.is_not_null())
                .add(token_secret::Column::EndsAt.lte(latest));
            let first = token_secret::Entity::update_many()
                .col_expr(token_secret::Column::PresentedAt, now.into())
                .filter(this.clone())
                .filter(token_secret::Column::PresentedAt.is_null())
                .filter(over)
                .exec(tx)
                .await?;
            if first.rows_affected == 0 {
                return Ok(Proof::nothing_changed().with(None));
            }
            token_secret::Entity::update_many()
                .col_expr(token_secret::Column::SupersededAt, now.into())
                .filter(this)
                .filter(token_secret::Column::SupersededAt.is_null())
                .exec(tx)
                .await?;
            let (revision, proof) = self
                .record_secret_change(tx, call, presented, (AuditAction::TokenSuperseded, &stack))
                .await?;
            Ok(proof.with(Some(revision)))
        })
    }

    async fn record_secret_change(
        &self,
        tx: &Transaction,
        call: &Call,
        presented: PresentedSecret,
        (action, stack): (AuditAction, &LockedStack),
    ) -> Result<(Revision, Proof), Error> {
        let details = Details::from([("generation".into(), presented.generation.to_string())]);
        let about = (stack, Some(presented.token));
        self.record_change(tx, call, (action, Kind::Superseded), about, details)
            .await
    }
}

/// Returns the condition that the token of this secret is live at this instant.
fn is_live(presented: PresentedSecret, now: Timestamp) -> Expr {
    let live = token::Entity::find_by_id(presented.token.into_untyped_uuid())
        .filter(still_live(now))
        .select_only()
        .column(token::Column::Uid)
        .into_query();
    Expr::exists(live)
}
