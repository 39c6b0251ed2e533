//! Ends the session whose secret was presented. Whoever has the secret may do that.

use std::sync::Arc;

use crate::domain::{
    audit::{AuditAction, Details},
    caller::{Actor, Call, Caller},
    refusal::Refusal,
    revision::Revision,
    token::TokenState,
};
use crate::store::{
    Error, PresentedSecret, Store,
    audit::append::Record,
    change_log::append::Kind,
    record::Proof,
    session::live::{end_session, find_session},
};
use stacktoken_core::facts_cache::Subject;

impl Store {
    /// Ends the session with this secret. Returns the revision of the change; `None` if the session
    /// had ended before, with its token or by itself. The actor of the audit row is the
    /// workload that started the session, because the caller is not authenticated. A suspended stack
    /// is no obstacle, because ending a session only removes access. Waits first in a separate queue
    /// for unauthenticated callers: they can present a dead secret any number of times, which must
    /// not hold up the other changes of the stack.
    ///
    /// # Errors
    /// Returns [`Error`] if the session may not have ended. The call must be repeated then.
    pub async fn end_presented_session(
        &self,
        call: &Call,
        presented: PresentedSecret,
    ) -> Result<Option<Revision>, Error> {
        let _turn = self.stranger_queues.take(presented.stack).await?;
        change_tx!(self, (presented.stack), "end_presented_session", |tx| {
            let subject = Subject::Token(presented.token);
            let nothing = || Ok(Proof::already_so(tx, subject).with(None));
            let stack = self.locked(tx, presented.stack).await?;
            let token = match self.token_to_change(tx, &stack, presented.token).await {
                // The token was purged after the secret was looked up.
                Err(Error::Refused(Refusal::TokenNotFound)) => return nothing(),
                found => found?,
            };
            let removed = stack.row.removed_at.is_some();
            if removed || token.state(stack.at) != TokenState::Active {
                return nothing();
            }
            let Some(session) = find_session(tx, &presented.digest).await? else {
                return nothing();
            };
            if !end_session(tx, &presented.digest, stack.at).await? {
                return nothing();
            }
            let call = Call {
                caller: Arc::new(Caller {
                    actor: Actor::of_session(&session.subject),
                    ..call.caller.as_ref().clone()
                }),
                ..call.clone()
            };
            let both = (AuditAction::TokenEndSession, Kind::SessionsEnded);
            let about = (&stack, Some(presented.token));
            let details = Details::from([
                ("issued_at".into(), session.issued_at.to_string()),
                ("expires_at".into(), session.expires_at.to_string()),
            ]);
            let recorded = self.record_change(tx, &call, both, about, Record::from(details));
            let (revision, proof) = recorded.await?;
            Ok(proof.with(Some(revision)))
        })
    }
}
