//! Reads, updates and revokes tokens, and changes their expiry. Each method is one transaction,
//! which first loads the stack and checks the caller's role.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    QueryTrait as _, Set, sea_query::Expr,
};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::{Actor, Call, Requirement},
    edit::Edit,
    etag::Target,
    id::{StackUid, TokenUid},
    refusal::Refusal,
    revision::Revision,
    stack::StackKey,
    text::Reason,
    timestamp::Timestamp,
    token::{Expiry, Token, TokenState},
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::{Affects, Transaction},
    entity::token,
    last_used::last_used,
    record::Proof,
    session::live::{count_live, end_sessions},
    stack::access::{LockedStack, RemovedStacks, StackContext},
    token::end_overlap::MaybeChanged,
    token::rows::{
        TokenWithLastUse, corrupt, token_of, written, written_federation, written_labels,
    },
    token::secrets,
    token::state::{neither_revoked_nor_ended, require_free_name},
};
use stacktoken_core::facts_cache::Subject;

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
            find_token(tx, (&stack, key), uid).await
        })
    }

    /// Returns one token, live or dead, and the number of its sessions that are live at `now`.
    ///
    /// # Errors
    /// Returns [`Error`] if the call is refused or the store fails.
    pub async fn get_with_sessions(
        &self,
        call: &Call,
        (key, uid): (&StackKey, TokenUid),
        now: Timestamp,
    ) -> Result<(Token, u32), Error> {
        read_tx!(self, call, "get", |tx| {
            let stack = self
                .load_stack(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let token = find_token(tx, (&stack, key), uid).await?;
            let live = token.federation.is_some() && token.state(now) == TokenState::Active;
            let sessions = if live {
                count_live(tx, uid, None, now).await?
            } else {
                0
            };
            Ok((token, sessions))
        })
    }

    /// Changes the name, the description, the permissions or the labels of a live token. If all of
    /// them already have the requested values, nothing is written, and the current revision is
    /// returned.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`], [`Refusal::Invalid`], [`Refusal::StackSuspended`],
    /// [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`], [`Refusal::NameTaken`], or another
    /// [`Error`] if the call is refused or the store fails.
    pub async fn update(
        &self,
        call: &Call,
        target: &Target,
        edit: &Edit,
    ) -> Result<(MaybeChanged, Revision), Error> {
        change_tx!(self, (call.mode, &target.stack_key), "update", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, &target.stack_key, RemovedStacks::Exclude)
                .await?;
            let uid = target.uid;
            let before = self.target_to_change(tx, &stack, target).await?;
            before.require_live(stack.at)?;
            stack.require_not_suspended()?;
            if let Some(name) = &edit.name {
                self.end_expired(tx, &stack).await?;
                require_free_name(tx, stack.uid, name, Some(uid)).await?;
            }
            let after = before.clone().update(edit.clone(), stack.at)?;
            if after == before {
                let revision = self.current_revision(tx).await?;
                let unchanged = MaybeChanged::unchanged(after);
                let proof = Proof::already_so(tx, Subject::Token(uid));
                return Ok(proof.with((unchanged, revision)));
            }
            update_token(tx, &after, UpdateGuard::Live).await?;
            let mut details = Details::new();
            if after.federation != before.federation {
                let ended = end_sessions(tx, uid, None, stack.at).await?;
                details.insert("sessions_ended".into(), ended.to_string());
            }
            let record = Record::changed(&before, &after).with(details);
            let about = (&stack, Some(uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenUpdate, Kind::Updated),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((MaybeChanged::changed(after), revision)))
        })
    }

    /// Changes when a live token expires (R7). An operator may only bring the expiry forward. While
    /// the stack is suspended, nobody may postpone it.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`], [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`],
    /// [`Refusal::StackSuspended`], [`Refusal::RoleRequired`], or another [`Error`] if the call is
    /// refused or the store fails.
    pub async fn set_expiry(
        &self,
        call: &Call,
        target: &Target,
        expiry: Expiry,
    ) -> Result<(Token, Revision), Error> {
        change_tx!(self, (call.mode, &target.stack_key), "set_expiry", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, &target.stack_key, RemovedStacks::Exclude)
                .await?;
            let before = self.target_to_change(tx, &stack, target).await?;
            before.require_live(stack.at)?;
            let expires_at = expiry.resolve(stack.at);
            let longer = before.outlives(expires_at);
            if longer {
                // A replica whose clock is ahead may already have answered that the token is
                // expired, and such an answer is final (R8).
                before.require_live(self.latest(stack.at))?;
                stack.require_not_suspended()?;
                require_stack_admin(call, &stack)?;
            }
            let after = before.clone().set_expiry(expires_at, stack.at)?;
            update_token(
                tx,
                &after,
                if longer {
                    UpdateGuard::Longer
                } else {
                    UpdateGuard::Live
                },
            )
            .await?;
            let record = Record::changed(&before, &after);
            let about = (&stack, Some(target.uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenSetExpiry, Kind::Redated),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((after, revision)))
        })
    }

    /// Revokes a live or expired token. If it is already revoked, it stays unchanged.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`], or another [`Error`] if the call is refused or the store
    /// fails.
    pub async fn revoke(
        &self,
        call: &Call,
        target: &Target,
        reason: &Reason,
    ) -> Result<(Token, Revision), Error> {
        change_tx!(self, (call.mode, &target.stack_key), "revoke", |tx| {
            let stack = self
                .lock_stack_for_change(tx, call, &target.stack_key, RemovedStacks::Exclude)
                .await?;
            let before = self.target_to_change(tx, &stack, target).await?;
            let again = before.revocation.is_some();
            let revoked = before.clone();
            let after = revoked.revoke(call.caller.actor.clone(), reason.clone(), stack.at);
            if !again {
                update_token(tx, &after, UpdateGuard::Unrevoked).await?;
            }
            let details = Details::from([
                ("reason".into(), reason.as_str().into()),
                ("again".into(), again.to_string()),
            ]);
            let record = Record::changed(&before, &after).with(details);
            let about = (&stack, Some(target.uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenRevoke, Kind::Revoked),
                    about,
                    record,
                )
                .await?;
            Ok(proof.with((after, revision)))
        })
    }

    /// Loads the token that a change modifies, as `token_to_change` does. Checks that it is still
    /// in the version that the caller has read.
    pub(in crate::store) async fn target_to_change(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        target: &Target,
    ) -> Result<Token, Error> {
        let token = self.token_to_change(tx, stack, target.uid).await?;
        token.require_etag(target.etag.as_ref(), stack.at)?;
        Ok(token)
    }

    /// Loads a token that a change concerns. If the token has expired, first records its end (R8).
    pub(in crate::store) async fn token_to_change(
        &self,
        tx: &Transaction,
        stack: &LockedStack,
        uid: TokenUid,
    ) -> Result<Token, Error> {
        let key = StackKey::parse(&stack.row.key);
        let key = key.map_err(|_| corrupt("stacks", "key", stack.row.uid))?;
        let mut token = find_token(tx, (stack, &key), uid).await?;
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

/// Returns a token of the stack with this key, with the token's secrets.
async fn find_token(
    tx: &Transaction,
    (stack, key): (&StackContext, &StackKey),
    uid: TokenUid,
) -> Result<Token, Error> {
    let row = find(tx, stack.uid, uid).await?;
    let mut secrets = secrets::of_each(tx, &[&row.row]).await?;
    let secrets = secrets.remove(&row.row.uid).unwrap_or_default();
    token_of(row, secrets, key)
}

/// Refuses a caller who acts as an operator, because an operator may only bring an expiry forward.
fn require_stack_admin(call: &Call, stack: &StackContext) -> Result<(), Refusal> {
    if !call.operates(stack.role) {
        return Ok(());
    }
    let stack_admin = Requirement {
        stack_admin: true,
        ..Requirement::default()
    };
    Err(stack_admin.refusal(stack.role))
}

/// Which rows an update may match. The update statement itself contains this condition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum UpdateGuard {
    /// Only a token that is neither revoked nor ended.
    Live,
    /// Only a token that is neither revoked nor ended. Also clears `expiry_told`, so that the new,
    /// later expiry is reported again when it approaches.
    Longer,
    /// Only a token that is not revoked.
    Unrevoked,
}

/// Writes a changed token.
pub(in crate::store) async fn update_token(
    tx: &Transaction,
    token: &Token,
    only: UpdateGuard,
) -> Result<(), Error> {
    let revocation = token.revocation.as_ref();
    let by = |part: fn(&Actor) -> String| revocation.map(|revoked| part(&revoked.by));
    let columns = token::ActiveModel {
        name: Set(token.name.as_str().to_owned()),
        description: Set(token.description.as_str().to_owned()),
        permissions: Set(written(&token.permissions)),
        labels: Set(written_labels(&token.labels)),
        federation: Set(written_federation(token.federation.as_ref())),
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
    if only == UpdateGuard::Longer {
        update = update.col_expr(token::Column::ExpiryTold, Expr::value(None::<i32>));
    }
    update = match only {
        UpdateGuard::Unrevoked => update.filter(token::Column::RevokedAt.is_null()),
        UpdateGuard::Live | UpdateGuard::Longer => update.filter(neither_revoked_nor_ended()),
    };
    // The stack is locked, so no other transaction can have changed the row. A row that does not
    // match is a bug.
    let update = update.build(tx.get_database_backend());
    Ok(tx.write(update, Affects::One).await?)
}
