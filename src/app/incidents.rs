//! Use cases that stop a leak: revoking many tokens at once, and reporting a leaked secret.

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
    /// The text that was found. It may have any form, and is wiped on drop.
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
        if let Ok(Some(revision)) = done.as_ref().map(|revoked| revoked.revision) {
            self.note_own(revision);
        }
        let about = About {
            stack_key: Some(command.stack_key.to_string()),
            token_uid: None,
        };
        if let Ok(RevokedAll {
            tokens,
            revision: Some(revision),
            ..
        }) = &done
        {
            for uid in tokens {
                let token_uid = Some(uid.to_string());
                let about = About {
                    token_uid,
                    ..about.clone()
                };
                log_change(AuditAction::TokenRevokeAll, &about, *revision);
            }
        }
        self.settle(call, (AuditAction::TokenRevokeAll, about), done)
    }

    /// Handles a report that a secret leaked. The outcome is written to the audit and not told to
    /// the caller.
    ///
    /// # Errors
    /// [`Error`] if the outcome cannot be determined (R13), never because of what was reported.
    pub async fn report_leaked(&self, call: &Call, report: &LeakReport) -> Result<(), Error> {
        let outcome = match secret::recognise(report.secret.trim()) {
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
        // The lookup is subject to the lease, like that for a verdict. A former primary may not
        // know the secret, and its answer that the secret is unknown must not be believed.
        let (facts, _) = self.facts_anew(digest, None).await?;
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
            };
            log_change(AuditAction::TokenReportLeaked, &about, revision);
        }
        Ok(outcome)
    }
}
