//! Rotates tokens. A token gets a new secret, and the former secret stays valid for a chosen
//! overlap.

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    etag::Target,
    request::Request,
    revision::Revision,
    rotation::{self, Overlap},
    timestamp::Timestamp,
    token::Token,
};
use crate::store::{
    Error, Store,
    audit::append::Record,
    change_log::append::Kind,
    stack::access::RemovedStacks,
    token::secrets::{self, NewSecret},
};

/// A request to give a token a new secret.
pub struct Rotate {
    /// The token that gets a new secret.
    pub target: Target,
    /// How long the former secret stays valid.
    pub overlap: Overlap,
    /// The request id and fingerprint, if the caller sent an idempotency key.
    pub request: Option<Request>,
}

/// A token after its rotation.
#[derive(Debug)]
pub struct Rotated {
    /// The token with its new secret.
    pub token: Token,
    /// When the former secret ends at the latest.
    pub overlap_ends_at: Timestamp,
}

impl Store {
    /// Rotates a token. Only its secret and its generation change.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`], [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`],
    /// [`Refusal::StackSuspended`], [`Refusal::RequestIdReused`], or another [`Error`] if the call
    /// is refused or the store fails.
    ///
    /// [`Refusal::EtagMismatch`]: crate::domain::refusal::Refusal::EtagMismatch
    /// [`Refusal::TokenRevoked`]: crate::domain::refusal::Refusal::TokenRevoked
    /// [`Refusal::TokenExpired`]: crate::domain::refusal::Refusal::TokenExpired
    /// [`Refusal::StackSuspended`]: crate::domain::refusal::Refusal::StackSuspended
    /// [`Refusal::RequestIdReused`]: crate::domain::refusal::Refusal::RequestIdReused
    pub async fn rotate(
        &self,
        call: &Call,
        command: &Rotate,
        secret: &NewSecret,
    ) -> Result<(Rotated, Revision), Error> {
        let target = &command.target;
        change_tx!(self, (call.mode, &target.stack_key), "rotate", |tx| {
            let (key, uid) = (&target.stack_key, target.uid);
            let request = command.request.as_ref();
            let stack = self
                .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                .await?;
            let place = (&stack, AuditAction::TokenRotate);
            if let Some(find_request) = self.find_request(tx, call, place, request).await? {
                stack.require_not_suspended()?;
                let again = self
                    .replay(tx, call, place, (find_request, request), secret)
                    .await?;
                let overlap_ends_at = again.overlap_ends_at.unwrap_or(stack.at);
                let rotated = Rotated {
                    token: again.token,
                    overlap_ends_at,
                };
                return Ok(again.proof.with((rotated, again.revision)));
            }
            let before = self.target_to_change(tx, &stack, target).await?;
            before.require_live(stack.at)?;
            before.require_own_secret()?;
            stack.require_not_suspended()?;
            let live = before.secrets.for_rotation(stack.at);
            let plan = rotation::plan(&live, command.overlap, before.expires_at, stack.at);
            let kept = secrets::apply_plan(tx, before.clone(), &plan, stack.at).await?;
            let token = secrets::renew(tx, kept, secret, stack.at).await?;
            let overlap_ends_at = plan.kept.map_or(stack.at, |(_, ending)| ending.at);
            self.record_request(tx, call, place, request, (&token, Some(overlap_ends_at)))
                .await?;
            let record = Record::changed(&before, &token).asked_by(request);
            let record = record.with(audit_details(&plan));
            let about = (&stack, Some(uid));
            let (revision, proof) = self
                .record_change(
                    tx,
                    call,
                    (AuditAction::TokenRotate, Kind::Rotated),
                    about,
                    record,
                )
                .await?;
            let rotated = Rotated {
                token,
                overlap_ends_at,
            };
            Ok(proof.with((rotated, revision)))
        })
    }
}

/// Returns the audit details: the generations that ended, and the overlap of the secret that stays
/// valid.
fn audit_details(plan: &rotation::Plan) -> Details {
    let mut details = Details::new();
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
