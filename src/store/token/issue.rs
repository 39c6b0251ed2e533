//! Issues a token in a stack, together with its first secret.

use newtype_uuid::GenericUuid as _;
use sea_orm::{ActiveModelTrait as _, EntityTrait as _, IntoActiveModel as _, QueryTrait as _};

use crate::domain::{
    audit::AuditAction,
    caller::Call,
    federation::Federation,
    field::Violations,
    id::{self, TokenUid},
    labels::Labels,
    permissions::Permissions,
    refusal::Refusal,
    request::Request,
    revision::Revision,
    stack::StackKey,
    text::{Description, TokenName},
    timestamp::Timestamp,
    token::{Expiry, Token},
    token_secret::TokenSecret,
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    engine::transaction::Affects,
    entity::token,
    stack::access::{LockedStack, RemovedStacks},
    token::rows::{token_of, written, written_federation, written_labels},
    token::secrets::{self, NewSecret},
};

/// A token to be issued.
pub struct Issue {
    /// The stack to which the token will belong (R1).
    pub stack_key: StackKey,
    /// The token's name.
    pub name: TokenName,
    /// What the token is for.
    pub description: Description,
    /// The token's permissions.
    pub permissions: Permissions,
    /// Labels for finding and grouping tokens. They never affect a verdict.
    pub labels: Labels,
    /// When the token expires.
    pub expiry: Expiry,
    /// Which workloads may obtain secrets. `None` if the token has its own secrets.
    pub federation: Option<Federation>,
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
    /// The violations to report if the expiry is not in the future. They are not reported if the
    /// request is a repetition.
    pub overdue: Violations,
}

/// A token that was issued, now or by an earlier request with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// Whether the request is a repetition, so that the token existed before it.
    pub is_repetition: bool,
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
        secret: &NewSecret,
    ) -> Result<(IssuedToken, Revision), Error> {
        change_tx!(self, (call.mode, &command.stack_key), "issue", |tx| {
            let key = &command.stack_key;
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            stack.require_not_suspended()?;
            let request = command.request.as_ref();
            let place = (&stack, AuditAction::TokenIssue);
            if let Some(find_request) = self.find_request(tx, call, place, request).await? {
                let again = self
                    .replay(tx, call, place, (find_request, request), secret)
                    .await?;
                let issued = IssuedToken {
                    token: again.token,
                    is_repetition: true,
                };
                return Ok(again.proof.with((issued, again.revision)));
            }
            if command.expiry.is_reached(stack.at) {
                return Err(Refusal::Invalid(command.overdue.clone()).into());
            }
            self.require_room(tx, &stack, &command.name).await?;
            let uid: TokenUid = id::generate(stack.at, self.entropy.as_ref())?;
            let row = new_row(call, command, (uid, &stack), &secret.hint);
            let insert = token::Entity::insert(row.clone().into_active_model().reset_all());
            tx.write(insert.build(self.backend()), Affects::Any).await?;
            // A federated token has no secret of its own.
            let first = if command.federation.is_none() {
                secrets::insert(tx, (uid, 1), secret, stack.at).await?;
                vec![TokenSecret::new(1, secret.hint.clone(), stack.at)]
            } else {
                Vec::new()
            };
            let token = token_of(row, first.into(), key)?;
            self.record_request(tx, call, place, request, (&token, None))
                .await?;
            let record = Record::made(&token).asked_by(request);
            let about = (&stack, Some(uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenIssue, Kind::Issued),
                    about,
                    record,
                )
                .await?;
            let issued = IssuedToken {
                token,
                is_repetition: false,
            };
            Ok(proof.with((issued, revision)))
        })
    }
}

fn new_row(
    call: &Call,
    command: &Issue,
    (uid, stack): (TokenUid, &LockedStack),
    hint: &str,
) -> token::Model {
    let by = &call.caller.actor;
    let own_secret = command.federation.is_none();
    token::Model {
        uid: uid.into_untyped_uuid(),
        stack_uid: stack.row.uid,
        name: command.name.as_str().to_owned(),
        description: command.description.as_str().to_owned(),
        permissions: written(&command.permissions),
        generation: own_secret.into(),
        secret_hint: if own_secret { hint } else { "" }.to_owned(),
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
        labels: written_labels(&command.labels),
        federation: written_federation(command.federation.as_ref()),
    }
}
