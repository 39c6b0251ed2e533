//! What a verdict leaves behind: the first use of a secret, before it is answered, and that a
//! superseded one was presented, after. Each once in the life of a secret.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QuerySelect as _,
    sea_query::LockType,
};

use super::{
    Error, Store,
    changes::Kind,
    entity::{stack, token, token_secret},
    live::still_live,
    rows::corrupt,
    secrets::{self, not_ended},
    transaction::Transaction,
    usage,
};
use crate::{
    domain::{
        audit::{Action, Details},
        caller::Call,
        id::{StackUid, TokenUid},
        revision::Revision,
        secret::Digest,
        stack::StackKey,
    },
    memory::Subject,
};

/// A secret, and what it belongs to.
#[derive(Clone, Copy)]
pub struct Presented {
    /// The digest of the secret.
    pub digest: Digest,
    /// Which secret of its token.
    pub generation: u32,
    /// The token.
    pub token: TokenUid,
    /// Its stack.
    pub stack: StackUid,
}

impl Store {
    /// Records that a secret is used for the first time; one used before, or dead, it leaves
    /// as it is. A former secret that was to live until then ends in the same transaction,
    /// and only then is there a change to tell of.
    ///
    /// # Errors
    /// [`Error`] where it could not be recorded: then it may not be answered as active.
    pub async fn record_first_use(
        &self,
        call: &Call,
        presented: Presented,
    ) -> Result<Option<Revision>, Error> {
        writing!(self, (presented.stack), "record_first_use", |tx| {
            // Before any of its secrets, as every change does: so none waits for another that
            // waits for it.
            let stack = locked(tx, presented.stack).await?;
            let live = stack.removed_at.is_none() && stack.suspended_at.is_none();
            if !live || !is_live(tx, presented, call).await? {
                return Ok(None);
            }
            let first = token_secret::Entity::update_many()
                .col_expr(
                    token_secret::Column::FirstUsedAt,
                    call.now.as_micros().into(),
                )
                .filter(token_secret::Column::Digest.eq(presented.digest.as_bytes().to_vec()))
                .filter(token_secret::Column::FirstUsedAt.is_null())
                .filter(not_ended(call.now))
                .exec(tx)
                .await?;
            if first.rows_affected == 0 {
                return Ok(None);
            }
            // Also where there is no change to tell of: what is cached says that it is unused.
            tx.touch(Subject::Token(presented.token));
            usage::note(tx, presented.token, &call.caller.actor, call.now).await?;
            let ended = token_secret::Entity::update_many()
                .col_expr(
                    token_secret::Column::SupersededAt,
                    call.now.as_micros().into(),
                )
                .filter(token_secret::Column::TokenUid.eq(presented.token.into_untyped_uuid()))
                .filter(token_secret::Column::Generation.lt(secrets::column(presented.generation)))
                .filter(token_secret::Column::UntilFirstUse.eq(true))
                .filter(token_secret::Column::SupersededAt.is_null())
                .exec(tx)
                .await?;
            if ended.rows_affected == 0 {
                return Ok(None);
            }
            let told = self
                .tell(tx, call, presented, (Action::TokenFirstUse, &stack))
                .await?;
            Ok(Some(told))
        })
    }

    /// Records that a superseded secret was presented, the first time that it is. One that ran
    /// out by the clock has ended for good then, whatever any other clock says.
    ///
    /// # Errors
    /// [`Error`] where it could not be recorded.
    pub async fn record_superseded(
        &self,
        call: &Call,
        presented: Presented,
    ) -> Result<Option<Revision>, Error> {
        writing!(self, (presented.stack), "record_superseded", |tx| {
            let stack = locked(tx, presented.stack).await?;
            let digest = presented.digest.as_bytes().to_vec();
            let now = call.now.as_micros();
            let this = token_secret::Column::Digest.eq(digest);
            let first = token_secret::Entity::update_many()
                .col_expr(token_secret::Column::PresentedAt, now.into())
                .filter(this.clone())
                .filter(token_secret::Column::PresentedAt.is_null())
                .exec(tx)
                .await?;
            if first.rows_affected == 0 {
                return Ok(None);
            }
            token_secret::Entity::update_many()
                .col_expr(token_secret::Column::SupersededAt, now.into())
                .filter(this)
                .filter(token_secret::Column::SupersededAt.is_null())
                .exec(tx)
                .await?;
            let told = self
                .tell(tx, call, presented, (Action::TokenSuperseded, &stack))
                .await?;
            Ok(Some(told))
        })
    }

    async fn tell(
        &self,
        tx: &Transaction,
        call: &Call,
        presented: Presented,
        (action, stack): (Action, &stack::Model),
    ) -> Result<Revision, Error> {
        let key = StackKey::parse(&stack.key).map_err(|_| corrupt("stacks", "key", stack.uid))?;
        let details = Details::from([("generation".into(), presented.generation.to_string())]);
        let uid = Some(presented.token);
        self.append_audit(tx, call, action, (&key, uid), details)
            .await?;
        let about = (presented.stack, uid);
        self.append_change(tx, about, Kind::Superseded, call.now)
            .await
    }
}

/// The stack, locked until the transaction ends.
pub(super) async fn locked(tx: &Transaction, uid: StackUid) -> Result<stack::Model, Error> {
    let uid = uid.into_untyped_uuid();
    let row = stack::Entity::find_by_id(uid)
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    row.ok_or_else(|| corrupt("stacks", "uid", uid))
}

async fn is_live(tx: &Transaction, presented: Presented, call: &Call) -> Result<bool, Error> {
    let live = token::Entity::find_by_id(presented.token.into_untyped_uuid())
        .filter(still_live(call.now))
        .count(tx)
        .await?;
    Ok(live == 1)
}
