//! Ending a session by its secret. The callers are strangers, so what they cost is limited, and they
//! learn nothing.

use std::num::NonZeroU32;

use super::{About, App, Error, Rate, first_use::presented, log_change};
use crate::domain::{
    audit::AuditAction,
    caller::{Actor, Call},
    refusal::Refusal,
    secret,
};

/// How many changes all strangers together may request. Each can cost a look-up in the store.
pub(super) const BY_STRANGERS: Rate = Rate {
    per_second: NonZeroU32::new(100).unwrap(),
    burst: NonZeroU32::new(500).unwrap(),
};

impl App {
    /// Checks the rate limit that all strangers share. Their networks have limits of their own, which
    /// come first, so that one network cannot use this one up.
    pub(super) fn admit_stranger(&self) -> Result<(), Refusal> {
        self.strangers.admit(&Actor::of_session(""))
    }

    /// Ends the session of a secret. Does nothing if the text is not the secret of a live session;
    /// the result does not reveal whether it was.
    ///
    /// # Errors
    /// [`Error`] if it cannot be determined whether it is one (R13), never because of the text.
    pub async fn end_session(&self, call: &Call, secret: &str) -> Result<(), Error> {
        let Some(digest) = secret::recognize(secret.trim()) else {
            return Ok(());
        };
        // As for a verdict: a former primary may not know the session.
        let (facts, _) = self.look_up_facts_unshared(digest, None).await?;
        let Some(facts) = facts.filter(|facts| facts.session.is_some()) else {
            return Ok(());
        };
        let presented = presented(digest, &facts);
        let done = self.store.end_presented_session(call, presented).await;
        if let Some(revision) = done? {
            self.note_own(revision);
            let about = About {
                stack_key: Some(facts.stack.key.clone()),
                token_uid: Some(facts.token.uid.to_string()),
                ..About::default()
            };
            log_change(AuditAction::TokenEndSession, &about, revision);
        }
        Ok(())
    }
}
