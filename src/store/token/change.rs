//! Reads, updates and revokes tokens, and changes their expiry. Each method is one transaction. It
//! first loads the stack and checks the caller's role.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _, Set, sea_query::Expr,
};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::{Actor, Call},
    id::{StackUid, TokenUid},
    refusal::Refusal,
    revision::Revision,
    stack::StackKey,
    text::Reason,
    timestamp::Timestamp,
    token::{Edit, Expiry, Token, TokenState},
};
use crate::store::{
    Error, Store,
    change_log::append::Kind,
    engine::transaction::Transaction,
    entity::token,
    last_used::last_used,
    stack::access::{LockedStack, RemovedStacks, StackContext},
    token::rows::{TokenWithLastUse, corrupt, token_of, written},
    token::state::{neither_revoked_nor_ended, require_free_name},
};

impl Store {
    /// Returns one token, live or dead.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn get(&self, call: &Call, key: &StackKey, uid: TokenUid) -> Result<Token, Error> {
        read_tx!(self, call, "get", |tx| {
            let stack = self
                .load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            token_of(find(tx, stack.uid, uid).await?, key)
        })
    }

    /// Changes the name, the description or the permissions of a live token.
    ///
    /// # Errors
    /// Returns [`Refusal::StackSuspended`], [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`],
    /// [`Refusal::NameTaken`], or another [`Error`] if the call is refused or the store fails.
    pub async fn update(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
        edit: &Edit,
    ) -> Result<(Token, Revision), Error> {
        write_tx!(self, (call.mode, key), "update", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let before = self.token_to_change(tx, &stack, uid).await?;
            before.require_live(stack.at)?;
            stack.require_not_suspended()?;
            if let Some(name) = &edit.name {
                self.end_expired(tx, &stack).await?;
                require_free_name(tx, stack.uid, name, Some(uid)).await?;
            }
            let after = before.clone().update(edit.clone(), stack.at)?;
            put(tx, &after, Put::Live).await?;
            let details = differences(&before, &after);
            let about = (&stack, Some(uid));
            self.append_audit(tx, call, AuditAction::TokenUpdate, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Updated).await?;
            Ok((after, revision))
        })
    }

    /// Changes when a live token expires (R7). An operator may only make it expire earlier. While
    /// the stack is suspended, nobody may make it expire later.
    ///
    /// # Errors
    /// Returns [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`], [`Refusal::StackSuspended`],
    /// [`Refusal::RoleRequired`], or another [`Error`] if the call is refused or the store fails.
    pub async fn set_expiry(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
        expiry: Expiry,
    ) -> Result<(Token, Revision), Error> {
        write_tx!(self, (call.mode, key), "set_expiry", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let before = self.token_to_change(tx, &stack, uid).await?;
            before.require_live(stack.at)?;
            let expires_at = expiry.resolve(stack.at);
            let longer = before.outlives(expires_at);
            if longer {
                // A replica whose clock is ahead may already have answered that the token is
                // expired, and such an answer is final (R8).
                before.require_live(self.latest(stack.at))?;
                stack.require_not_suspended()?;
                require_governor(call, &stack)?;
            }
            let after = before.clone().set_expiry(expires_at, stack.at)?;
            put(tx, &after, if longer { Put::Longer } else { Put::Live }).await?;
            let details = differences(&before, &after);
            let about = (&stack, Some(uid));
            self.append_audit(tx, call, AuditAction::TokenSetExpiry, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Redated).await?;
            Ok((after, revision))
        })
    }

    /// Revokes a live or expired token. If it is already revoked, it stays unchanged.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn revoke(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
        reason: &Reason,
    ) -> Result<(Token, Revision), Error> {
        write_tx!(self, (call.mode, key), "revoke", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let before = self.token_to_change(tx, &stack, uid).await?;
            let again = before.revocation.is_some();
            let after = before.revoke(call.caller.actor.clone(), reason.clone(), stack.at);
            if !again {
                put(tx, &after, Put::Unrevoked).await?;
            }
            let details = Details::from([
                ("reason".into(), reason.as_str().into()),
                ("again".into(), again.to_string()),
            ]);
            let about = (&stack, Some(uid));
            self.append_audit(tx, call, AuditAction::TokenRevoke, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Revoked).await?;
            Ok((after, revision))
        })
    }

    /// Loads the token. If it turns out to be expired, records its end (R8).
    pub(in crate::store) async fn token_to_change(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        uid: TokenUid,
    ) -> Result<Token, Error> {
        let row = find(tx, stack.uid, uid).await?;
        let key = StackKey::parse(&stack.row.key);
        let key = key.map_err(|_| corrupt("tokens", "stack_key", row.row.uid))?;
        let mut token = token_of(row, &key)?;
        if token.state(stack.at) == TokenState::Expired && token.ended_at.is_none() {
            token.ended_at = Some(stack.at);
            self.end(tx, stack, vec![uid]).await?;
        }
        Ok(token)
    }
}

pub(in crate::store) async fn find(
    tx: &Transaction,
    stack: StackUid,
    uid: TokenUid,
) -> Result<TokenWithLastUse, Error> {
    let row = token::Entity::find_by_id(uid.into_untyped_uuid())
        .filter(token::Column::StackUid.eq(stack.into_untyped_uuid()))
        .expr_as(last_used(), "last_used_at")
        .into_model::<TokenWithLastUse>()
        .one(tx)
        .await?;
    Ok(row.ok_or(Refusal::TokenNotFound)?)
}

fn require_governor(call: &Call, stack: &StackContext) -> Result<(), Refusal> {
    if !call.operates(stack.role) {
        return Ok(());
    }
    let required = "owner or admin of the stack; an operator may only bring an expiry forward";
    Err(Refusal::RoleRequired {
        required: required.to_owned(),
    })
}

fn in_words(expires_at: Option<Timestamp>) -> String {
    expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

pub(in crate::store) fn described(token: &Token) -> Details {
    Details::from([
        ("name".into(), token.name.as_str().into()),
        ("permissions".into(), written(&token.permissions)),
        ("expires_at".into(), in_words(token.expires_at)),
    ])
}

/// Returns what a change altered. Each altered field has its new value, and its former value under
/// `name.before`.
fn differences(before: &Token, after: &Token) -> Details {
    let told = |token: &Token| {
        let mut details = described(token);
        details.insert("description".into(), token.description.as_str().into());
        details
    };
    let (old, new) = (told(before), told(after));
    let changed = new
        .into_iter()
        .filter(|(name, value)| old.get(name) != Some(value));
    changed
        .flat_map(|(name, value)| {
            let former = old.get(&name).cloned().unwrap_or_default();
            [(format!("{name}.before"), former), (name, value)]
        })
        .collect()
}

/// Which rows an update may match. The update statement itself checks this precondition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Put {
    Live,
    /// Only a live token, whose expiry moves to a later time. The new expiry must then be reported
    /// again.
    Longer,
    Unrevoked,
}

/// Writes a token that was changed.
pub(in crate::store) async fn put(tx: &Transaction, token: &Token, only: Put) -> Result<(), Error> {
    let revocation = token.revocation.as_ref();
    let by = |part: fn(&Actor) -> String| revocation.map(|revoked| part(&revoked.by));
    let columns = token::ActiveModel {
        name: Set(token.name.as_str().to_owned()),
        description: Set(token.description.as_str().to_owned()),
        permissions: Set(written(&token.permissions)),
        expires_at: Set(token.expires_at.map(Timestamp::as_micros)),
        ended_at: Set(token.ended_at.map(Timestamp::as_micros)),
        revoked_at: Set(revocation.map(|revoked| revoked.at.as_micros())),
        revoked_by_kind: Set(by(|actor| actor.kind.name().to_owned())),
        revoked_by_issuer: Set(by(|actor| actor.issuer.clone())),
        revoked_by_subject: Set(by(|actor| actor.subject.clone())),
        revoke_reason: Set(revocation.map_or_else(String::new, |r| r.reason.as_str().to_owned())),
        ..<token::ActiveModel as Default>::default()
    };
    let mut update = token::Entity::update_many()
        .set(columns)
        .filter(token::Column::Uid.eq(token.uid.into_untyped_uuid()));
    if only == Put::Longer {
        update = update.col_expr(token::Column::ExpiryTold, Expr::value(None::<i32>));
    }
    update = match only {
        Put::Unrevoked => update.filter(token::Column::RevokedAt.is_null()),
        Put::Live | Put::Longer => update.filter(neither_revoked_nor_ended()),
    };
    match update.exec(tx).await?.rows_affected {
        1 => Ok(()),
        // The stack is locked, so no other transaction can have changed the row. If the row does
        // not match, this is a bug.
        _ => Err(corrupt(
            "tokens",
            "revoked_at",
            token.uid.into_untyped_uuid(),
        )),
    }
}
