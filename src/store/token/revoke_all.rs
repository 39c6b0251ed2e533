//! Revokes many tokens of a stack at once. Either exactly the previewed tokens are revoked, or
//! none.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _, Set,
};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::{StackUid, TokenUid},
    incident::{IssuedBy, PreviewHash, RevokeFilter},
    refusal::Refusal,
    revision::Revision,
    stack::StackKey,
    text::Reason,
    timestamp::Timestamp,
    token::TokenState,
};
use crate::store::{
    Error, Store,
    change_log::append::{AT_ONCE, Kind},
    engine::transaction::Transaction,
    entity::token,
    last_used,
    stack::access::{LockedStack, RemovedStacks},
    token::rows::corrupt,
    token::state::{in_state, neither_revoked_nor_ended},
};

/// A request to revoke many tokens of a stack at once.
#[derive(Clone, Debug)]
pub struct RevokeAll {
    /// The stack of the tokens.
    pub stack_key: StackKey,
    /// Which live tokens of the stack to revoke.
    pub filter: RevokeFilter,
    /// Why the tokens are revoked.
    pub reason: Reason,
    /// The hash of the set of tokens that the caller was shown. It may be omitted in a preview.
    pub previewed: Option<PreviewHash>,
}

/// The tokens that were revoked at once. In a preview, those that would be revoked.
#[derive(Debug)]
pub struct RevokedAll {
    /// The ids of the tokens, in ascending order.
    pub tokens: Vec<TokenUid>,
    /// The hash of this set of tokens.
    pub preview: PreviewHash,
    /// A revision that includes the revocations. `None` if nothing was changed.
    pub revision: Option<Revision>,
}

impl Store {
    /// Revokes all live tokens of a stack that match the filter, if they are exactly the tokens
    /// that were previewed.
    ///
    /// # Errors
    /// Returns [`Refusal::PreviewChanged`], or another [`Error`] if the call is refused or the
    /// store fails.
    pub async fn revoke_all(&self, call: &Call, command: &RevokeAll) -> Result<RevokedAll, Error> {
        write_tx!(self, (call.mode, &command.stack_key), "revoke_all", |tx| {
            let (key, filter) = (&command.stack_key, &command.filter);
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let tokens = live(tx, stack.uid, filter, stack.at).await?;
            let preview = PreviewHash::of(key, filter, &tokens);
            let unasked = command.previewed.is_none() && call.previews();
            if command.previewed != Some(preview) && !unasked {
                let count = tokens.len();
                return Err(Refusal::PreviewChanged { count }.into());
            }
            let mut revision = None;
            if !call.previews() {
                // Expired tokens are not in the set. Their end is recorded, so that they stay dead
                // on every replica, whatever its clock says (R8).
                self.end_expired(tx, &stack).await?;
                put(tx, (&stack, &tokens), call, &command.reason).await?;
                let details = described(command, preview, tokens.len());
                self.append_audit_of_each(
                    tx,
                    call,
                    AuditAction::TokenRevokeAll,
                    (&stack, &tokens),
                    &details,
                )
                .await?;
                let about = (&stack, tokens.as_slice());
                revision = self.append_change_of_each(tx, about, Kind::Revoked).await?;
            }
            Ok(RevokedAll {
                tokens,
                preview,
                revision,
            })
        })
    }
}

/// Returns the live tokens that match a filter, sorted by id.
async fn live(
    tx: &Transaction,
    stack: StackUid,
    filter: &RevokeFilter,
    now: Timestamp,
) -> Result<Vec<TokenUid>, Error> {
    let rows: Vec<Uuid> = token::Entity::find()
        .select_only()
        .column(token::Column::Uid)
        .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
        .filter(in_state(TokenState::Active, now))
        .filter(matching(filter))
        .into_tuple()
        .all(tx)
        .await?;
    let mut tokens: Vec<_> = rows.into_iter().map(TokenUid::from_untyped_uuid).collect();
    tokens.sort_unstable();
    Ok(tokens)
}

fn matching(filter: &RevokeFilter) -> Condition {
    match filter {
        RevokeFilter::All => Condition::all(),
        RevokeFilter::Those {
            issued_by: by,
            unused_since,
        } => Condition::all()
            .add_option(by.as_ref().map(issued_by))
            .add_option(unused_since.map(last_used::unused_since)),
    }
}

fn issued_by(by: &IssuedBy) -> Condition {
    let kind = by
        .kind
        .map(|kind| token::Column::IssuedByKind.eq(kind.name()));
    Condition::all()
        .add(token::Column::IssuedByIssuer.eq(by.issuer.as_str()))
        .add(token::Column::IssuedBySubject.eq(by.subject.as_str()))
        .add_option(kind)
}

/// Writes the revocations. The statement itself checks that the tokens are neither revoked nor
/// ended.
async fn put(
    tx: &Transaction,
    (stack, tokens): (&LockedStack, &[TokenUid]),
    call: &Call,
    reason: &Reason,
) -> Result<(), Error> {
    let by = &call.caller.actor;
    for some in tokens.chunks(AT_ONCE) {
        let columns = token::ActiveModel {
            revoked_at: Set(Some(stack.at.as_micros())),
            revoked_by_kind: Set(Some(by.kind.name().to_owned())),
            revoked_by_issuer: Set(Some(by.issuer.clone())),
            revoked_by_subject: Set(Some(by.subject.clone())),
            revoke_reason: Set(reason.as_str().to_owned()),
            ..<token::ActiveModel as Default>::default()
        };
        let uids = some.iter().map(|uid| uid.into_untyped_uuid());
        let done = token::Entity::update_many()
            .set(columns)
            .filter(token::Column::Uid.is_in(uids))
            .filter(neither_revoked_nor_ended())
            .exec(tx)
            .await?;
        if done.rows_affected != some.len() as u64 {
            // The stack is locked, so no other transaction can have changed a row. If a row does
            // not match, this is a bug.
            return Err(corrupt("tokens", "revoked_at", stack.row.uid));
        }
    }
    Ok(())
}

fn described(command: &RevokeAll, preview: PreviewHash, count: usize) -> Details {
    let mut details = command.filter.described();
    details.insert("reason".into(), command.reason.as_str().into());
    details.insert("preview_hash".into(), preview.to_string());
    details.insert("count".into(), count.to_string());
    details
}
