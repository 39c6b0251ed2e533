//! Rotation. A token gets a new secret, and the former secret stays valid for a chosen overlap.

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::TokenUid,
    request::Request,
    revision::Revision,
    rotation::{self, Overlap},
    stack::StackKey,
    timestamp::Timestamp,
    token::Token,
};
use crate::store::{
    Error, Store,
    change_log::append::Kind,
    stack::access::RemovedStacks,
    token::secrets::{self, Kept},
};

/// A request to give a token a new secret.
pub struct Rotate {
    /// The stack of the token.
    pub stack_key: StackKey,
    /// The token that gets a new secret.
    pub token_uid: TokenUid,
    /// How long the former secret stays valid.
    pub overlap: Overlap,
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
}

/// A token that has a new secret.
#[derive(Debug)]
pub struct Rotated {
    /// The token after the rotation.
    pub token: Token,
    /// When the former secret ends at the latest.
    pub overlap_ends_at: Timestamp,
}

impl Store {
    /// Rotates a token. Only its secret and its generation change.
    ///
    /// # Errors
    /// Returns [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`], [`Refusal::StackSuspended`],
    /// [`Refusal::RequestIdReused`], or another [`Error`] if the call is refused or the store
    /// fails.
    ///
    /// [`Refusal::TokenRevoked`]: crate::domain::refusal::Refusal::TokenRevoked
    /// [`Refusal::TokenExpired`]: crate::domain::refusal::Refusal::TokenExpired
    /// [`Refusal::StackSuspended`]: crate::domain::refusal::Refusal::StackSuspended
    /// [`Refusal::RequestIdReused`]: crate::domain::refusal::Refusal::RequestIdReused
    pub async fn rotate(
        &self,
        call: &Call,
        command: &Rotate,
        secret: &Kept,
    ) -> Result<(Rotated, Revision), Error> {
        write_tx!(self, (call.mode, &command.stack_key), "rotate", |tx| {
            let (key, uid) = (&command.stack_key, command.token_uid);
            let request = command.request.as_ref();
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let place = (&stack, AuditAction::TokenRotate);
            if let Some(seen) = self.seen(tx, call, place, request).await? {
                stack.require_not_suspended()?;
                let again = self
                    .answer_again(tx, call, place, (seen, request), secret)
                    .await?;
                let overlap_ends_at = again.overlap_ends_at.unwrap_or(stack.at);
                let rotated = Rotated {
                    token: again.token,
                    overlap_ends_at,
                };
                return Ok((rotated, again.revision));
            }
            let before = self.token_to_change(tx, &stack, uid).await?;
            before.require_live(stack.at)?;
            stack.require_not_suspended()?;
            let live = secrets::live(tx, uid, stack.at).await?;
            let plan = rotation::plan(&live, command.overlap, before.expires_at, stack.at);
            secrets::carry_out(tx, uid, &plan, stack.at).await?;
            let token = secrets::renew(tx, before, secret, stack.at).await?;
            let overlap_ends_at = plan.kept.map_or(stack.at, |(_, ending)| ending.at);
            self.remember(tx, call, place, request, (&token, Some(overlap_ends_at)))
                .await?;
            let details = described(&token, &plan);
            let about = (&stack, Some(uid));
            self.append_audit(tx, call, AuditAction::TokenRotate, about, details)
                .await?;
            let revision = self.append_change(tx, about, Kind::Rotated).await?;
            let rotated = Rotated {
                token,
                overlap_ends_at,
            };
            Ok((rotated, revision))
        })
    }
}

/// Describes which secret is new, which secrets ended, and which secret stays valid until when.
fn described(token: &Token, plan: &rotation::Plan) -> Details {
    let mut details = Details::from([("generation".into(), token.generation.to_string())]);
    if !plan.ended.is_empty() {
        let ended: Vec<_> = plan.ended.iter().map(ToString::to_string).collect();
        details.insert("ended".into(), ended.join(", "));
    }
    if let Some((generation, ending)) = plan.kept {
        details.insert("overlap.generation".into(), generation.to_string());
        details.insert("overlap.ends_at".into(), ending.at.to_string());
        let until_first_use = ending.on_first_use.to_string();
        details.insert("overlap.until_first_use".into(), until_first_use);
    }
    details
}
