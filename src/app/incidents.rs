//! What stops a leak: many tokens revoked at once, and a secret that was found somewhere.

use zeroize::Zeroizing;

use super::{About, App, Error, log_change, uses::presented};
use crate::{
    domain::{
        audit::Action,
        caller::Call,
        incident::{FoundAt, LeakOutcome},
        secret::{self, Digest},
    },
    metrics::LeakLabel,
    store::{RevokeAll, RevokedAll},
};

/// A report that a secret leaked.
pub struct LeakReport {
    /// What was found, whatever it is; wiped when the report is done.
    pub secret: Zeroizing<String>,
    /// Where.
    pub found_at: Option<FoundAt>,
}

impl App {
    /// Revokes all tokens that were previewed, or none.
    ///
    /// # Errors
    /// [`Error`]; refused where the set is another by now.
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
                log_change(Action::TokenRevokeAll, &about, *revision);
            }
        }
        self.settle(call, (Action::TokenRevokeAll, about), done)
    }

    /// Takes a report that a secret leaked. What came of it is in the audit, and not told.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided (R13): never for what was reported.
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
        // Under the lease, as a verdict: a database that is not the primary any more may not
        // know the secret, and must not be taken for one that knows better.
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
            log_change(Action::TokenReportLeaked, &about, revision);
        }
        Ok(outcome)
    }
}
