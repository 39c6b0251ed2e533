//! Ends sessions of a federated token. The token itself stays live.

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Call,
    id::TokenUid,
    revision::Revision,
    stack::StackKey,
};
use crate::store::{
    Error, Store, audit::append::Record, change_log::append::Kind, record::Proof,
    session::live::end_sessions, stack::access::RemovedStacks,
};
use stacktoken_core::facts_cache::Subject;

/// Which sessions to end.
pub struct EndSessions {
    /// The stack of the token.
    pub stack_key: StackKey,
    /// The token.
    pub token: TokenUid,
    /// The workload whose sessions are ended. `None` ends the sessions of all workloads.
    pub subject: Option<String>,
}

impl Store {
    /// Ends live sessions of a token. If there are none, nothing is recorded, and the current
    /// revision is returned. Works while the stack is suspended, because it only takes access away.
    ///
    /// # Errors
    /// Returns [`Refusal::TokenRevoked`], [`Refusal::TokenExpired`], or another [`Error`] if the
    /// call is refused or the store fails.
    ///
    /// [`Refusal::TokenRevoked`]: crate::domain::refusal::Refusal::TokenRevoked
    /// [`Refusal::TokenExpired`]: crate::domain::refusal::Refusal::TokenExpired
    pub async fn end_sessions(
        &self,
        call: &Call,
        command: &EndSessions,
    ) -> Result<(u32, Revision), Error> {
        change_tx!(
            self,
            (call.mode, &command.stack_key),
            "end_sessions",
            |tx| {
                let (key, uid) = (&command.stack_key, command.token);
                let stack = self
                    .lock_stack_for_change(tx, call, key, RemovedStacks::Exclude)
                    .await?;
                let token = self.token_to_change(tx, &stack, uid).await?;
                token.require_live(stack.at)?;
                let subject = command.subject.as_deref();
                let ended = end_sessions(tx, uid, subject, stack.at).await?;
                if ended == 0 {
                    let revision = self.current_revision(tx).await?;
                    let proof = Proof::already_so(tx, Subject::Token(uid));
                    return Ok(proof.with((ended, revision)));
                }
                let mut details = Details::from([("ended".into(), ended.to_string())]);
                if let Some(subject) = subject {
                    details.insert("subject".into(), subject.to_owned());
                }
                let both = (AuditAction::TokenEndSessions, Kind::SessionsEnded);
                let about = (&stack, Some(uid));
                let recorded = self.record_change(tx, call, both, about, Record::from(details));
                let (revision, proof) = recorded.await?;
                Ok(proof.with((ended, revision)))
            }
        )
    }
}
