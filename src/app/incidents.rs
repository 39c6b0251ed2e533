//! Use cases for responding to a leak: revoking many tokens at once, and reporting a leaked secret.

use zeroize::Zeroizing;

use super::{About, App, Error, first_use::presented, log_change};
use crate::{
    domain::{
        audit::AuditAction,
        caller::Call,
        incident::{FoundAt, LeakOutcome},
        secret::{self, Digest},
    },
    metrics::LeakLabel,
    store::{RevokeAll, RevokedAll},
};

/// A report that a secret leaked.
pub struct LeakReport {
    /// The string that was found. It can have any form, and is wiped on drop.
    pub secret: Zeroizing<String>,
    /// The address where it was found.
    pub found_at: Option<FoundAt>,
}

impl App {
    /// Revokes all tokens that a preview has listed, or none of them.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the set of tokens has changed since the preview.
    pub async fn revoke_all(&self, call: &Call, command: &RevokeAll) -> Result<RevokedAll, Error> {
        let done = self.store.revoke_all(call, command).await;
        let about = About {
            stack_key: Some(command.stack_key.to_string()),
            request_id: command.request.as_ref().map(|request| request.id.clone()),
            ..About::default()
        };
        if let Ok(revoked) = &done {
            self.note_revoked(&about, revoked);
        }
        let done = done.map(|mut revoked| {
            let tokens = std::mem::take(&mut revoked.page.tokens).into_iter();
            revoked.page.tokens = tokens.map(|token| self.with_use(token)).collect();
            revoked
        });
        self.settle(call, (AuditAction::TokenRevokeAll, about), done)
    }

    /// Notes and logs revocations. Does nothing for a preview or a repetition, because they change
    /// nothing.
    fn note_revoked(&self, about: &About, revoked: &RevokedAll) {
        let Some(revision) = revoked.revision.filter(|_| !revoked.again) else {
            return;
        };
        self.note_own(revision);
        for uid in &revoked.tokens {
            let about = About {
                token_uid: Some(uid.to_string()),
                ..about.clone()
            };
            log_change(AuditAction::TokenRevokeAll, &about, revision);
        }
    }

    /// Handles a report that a secret leaked. The outcome is recorded in the audit; the response
    /// does not reveal it.
    ///
    /// # Errors
    /// [`Error`] if the outcome cannot be determined (R13), never because of what was reported.
    pub async fn report_leaked(&self, call: &Call, report: &LeakReport) -> Result<(), Error> {
        let outcome = match secret::recognize(report.secret.trim()) {
            Some(digest) => self.stop(call, digest, report.found_at.as_ref()).await?,
            None => LeakOutcome::Unknown,
        };
        let outcome = outcome.name();
        self.metrics
            .leak_reports
            .get_or_create(&LeakLabel { outcome })
            .inc();
        Ok(())
    }

    async fn stop(
        &self,
        call: &Call,
        digest: Digest,
        found_at: Option<&FoundAt>,
    ) -> Result<LeakOutcome, Error> {
        // Like the lookup for a verdict, this lookup must be answered by the current primary. A
        // former primary may not know the secret, and the report would have no effect.
        let (facts, _) = self.look_up_facts_unshared(digest, None).await?;
        let Some(facts) = facts else {
            return Ok(LeakOutcome::Unknown);
        };
        let presented = presented(digest, &facts);
        let done = self.store.report_leaked(call, presented, found_at).await;
        let (outcome, revision) = done?;
        if let Some(revision) = revision {
            self.note_own(revision);
            let about = About {
                stack_key: Some(facts.stack.key.clone()),
                token_uid: Some(facts.token.uid.to_string()),
                ..About::default()
            };
            log_change(AuditAction::TokenReportLeaked, &about, revision);
        }
        Ok(outcome)
    }
}
