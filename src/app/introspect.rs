//! The verdict on a presented token: digest, facts from the store, then the pure judgement at
//! one instant.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{App, Error};
use crate::{
    domain::{
        caller::Call,
        revision::Revision,
        secret,
        timestamp::Timestamp,
        verdict::{self, ActionQuestion, Facts, Reason, Verdict},
    },
    metrics::ReasonLabel,
    store,
};

/// What a service asks.
pub struct Question {
    /// The secret as it was presented; wiped when the question is done.
    pub token: Zeroizing<String>,
    /// The stack key presented with it, whatever it looks like.
    pub stack_api_key: String,
    /// The actions at hand.
    pub actions: Vec<ActionQuestion>,
}

/// The answer, with what it was judged on.
#[derive(Debug)]
pub struct Introspection {
    /// The judgement.
    pub verdict: Verdict,
    /// What is known of the token; absent where it was not recognised, so that nothing of
    /// it can slip into the answer.
    pub known: Option<Known>,
    /// Whether an action was asked about.
    pub asked: bool,
}

/// What stands behind a precise answer.
#[derive(Debug)]
pub struct Known {
    /// The facts.
    pub facts: Facts,
    /// All changes up to here are in them.
    pub revision: Revision,
    /// The instant of the judgement.
    pub evaluated_at: Timestamp,
    /// For how long the caller may reuse the answer.
    pub max_age: Duration,
}

impl App {
    /// Judges a presented token.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided (R13), or where this caller presents too many
    /// unrecognised tokens.
    pub async fn introspect(
        &self,
        call: &Call,
        question: &Question,
    ) -> Result<Introspection, Error> {
        let found = match secret::recognise(&question.token) {
            Some(digest) => self.store.find_by_digest(&digest).await?,
            None => None,
        };
        let asked = !question.actions.is_empty();
        // Read after the look-up: expiry is compared at the time of the answer.
        let now = self.clock.now();
        let facts = found.as_ref().map(|found| &found.facts);
        let verdict = verdict::evaluate(facts, &question.stack_api_key, &question.actions, now);
        self.count(&verdict);
        if verdict == Verdict::NotRecognised {
            self.unrecognised.admit(&call.caller.actor)?;
            return Ok(Introspection {
                verdict,
                known: None,
                asked,
            });
        }
        let known = found.map(|found| self.known(found, now));
        Ok(Introspection {
            verdict,
            known,
            asked,
        })
    }

    fn known(&self, found: store::Found, now: Timestamp) -> Known {
        let until_expiry = found.facts.token.expires_at.filter(|at| *at > now);
        let left = until_expiry.map_or(Duration::MAX, |at| at.since(now));
        Known {
            facts: found.facts,
            revision: found.revision,
            evaluated_at: now,
            max_age: self.verdict_max_age.min(left),
        }
    }

    fn count(&self, verdict: &Verdict) {
        let reason = verdict.reason().map_or("OK", Reason::name);
        self.metrics
            .verdicts
            .get_or_create(&ReasonLabel { reason })
            .inc();
        if let Verdict::Active(results) = verdict {
            let denials = results
                .iter()
                .filter_map(|result| result.denial.as_ref().err());
            let unknown = denials.filter(|denial| denial.reason == Reason::ActionUnknown);
            self.metrics.unknown_actions.inc_by(unknown.count() as u64);
        }
    }
}
