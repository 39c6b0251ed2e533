//! Issues a token in a stack, together with its first secret.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ActiveModelTrait as _, IntoActiveModel as _};

use crate::domain::{
    audit::AuditAction,
    caller::Call,
    field::Violations,
    id::{self, TokenUid},
    permissions::Permissions,
    refusal::Refusal,
    request::Request,
    revision::Revision,
    stack::StackKey,
    text::{Description, TokenName},
    timestamp::Timestamp,
    token::{Expiry, Token},
};
use crate::store::{
    Error, Store,
    change_log::append::Kind,
    entity::token,
    stack::access::{LockedStack, RemovedStacks},
    token::change::described,
    token::rows::{token_of, written},
    token::secrets::{self, Kept},
    token::state::require_free_name,
};

/// A token to be issued.
pub struct Issue {
    /// The stack to which the token will belong (R1).
    pub stack_key: StackKey,
    /// The token's name.
    pub name: TokenName,
    /// What the token is for.
    pub description: Description,
    /// What the token may do.
    pub permissions: Permissions,
    /// When the token expires.
    pub expiry: Expiry,
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
    /// The violations to report if the expiry is not in the future. They are not reported if the
    /// request is a repetition.
    pub overdue: Violations,
}

impl Store {
    /// Issues a token. The limit (R6) and the name are checked under the lock of the stack.
    ///
    /// # Errors
    /// Returns [`Refusal::StackSuspended`], [`Refusal::LimitReached`], [`Refusal::NameTaken`],
    /// [`Refusal::RequestIdReused`], or another [`Error`] if the call is refused or the store
    /// fails.
    pub async fn issue(
        &self,
        call: &Call,
        command: &Issue,
        secret: &Kept,
    ) -> Result<(Token, Revision), Error> {
        write_tx!(self, (call.mode, &command.stack_key), "issue", |tx| {
            let key = &command.stack_key;
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            stack.require_not_suspended()?;
            let request = command.request.as_ref();
            let place = (&stack, AuditAction::TokenIssue);
            if let Some(seen) = self.seen(tx, call, place, request).await? {
                let again = self
                    .answer_again(tx, call, place, (seen, request), secret)
                    .await?;
                return Ok((again.token, again.revision));
            }
            if command.expiry.is_reached(stack.at) {
                return Err(Refusal::Invalid(command.overdue.clone()).into());
            }
            self.end_expired(tx, &stack).await?;
            self.require_room(tx, &stack).await?;
            require_free_name(tx, stack.uid, &command.name, None).await?;
            let uid: TokenUid = id::generate(stack.at, self.entropy.as_ref())?;
            let row = new_row(call, command, (uid, &stack), &secret.hint);
            let row = row.insert(tx).await?;
            secrets::keep(tx, (uid, 1), secret, stack.at).await?;
            let token = token_of(row, key)?;
            self.remember(tx, call, place, request, (&token, None))
                .await?;
            let details = described(&token);
            let about = (&stack, Some(uid));
            self.append_audit(tx, call, AuditAction::TokenIssue, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Issued).await?;
            Ok((token, revision))
        })
    }
}

fn new_row(
    call: &Call,
    command: &Issue,
    (uid, stack): (TokenUid, &LockedStack),
    hint: &str,
) -> token::ActiveModel {
    let by = &call.caller.actor;
    token::Model {
        uid: uid.into_untyped_uuid(),
        stack_uid: stack.row.uid,
        name: command.name.as_str().to_owned(),
        description: command.description.as_str().to_owned(),
        permissions: written(&command.permissions),
        generation: 1,
        secret_hint: hint.to_owned(),
        issued_at: stack.at.as_micros(),
        issued_by_kind: by.kind.name().to_owned(),
        issued_by_issuer: by.issuer.clone(),
        issued_by_subject: by.subject.clone(),
        expires_at: command.expiry.resolve(stack.at).map(Timestamp::as_micros),
        ended_at: None,
        revoked_at: None,
        revoked_by_kind: None,
        revoked_by_issuer: None,
        revoked_by_subject: None,
        revoke_reason: String::new(),
        expiry_told: None,
    }
    .into_active_model()
    .reset_all()
}
