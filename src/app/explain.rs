//! Explains to an owner or admin whether a workload's JWT would be exchanged. The explanation does
//! not use up the JWT.

use std::{collections::BTreeSet, time::Duration};

use zeroize::Zeroizing;

use super::{
    App, Error,
    exchange::{compare, obstacle_of},
    tokens::about,
};
use crate::domain::{
    audit::AuditAction,
    caller::Call,
    federation::{
        Federation, Obstacle, Replay, Unverified, Verified, Workload, evaluate::RuleOutcome,
        session::end_of_session,
    },
    field::{Problem, Violations},
    id::TokenUid,
    refusal::Refusal,
    request::Fingerprint,
    stack::StackKey,
    token::{Token, TokenState},
};

/// A request to explain an exchange.
pub struct ExplainExchange {
    /// The stack.
    pub stack_key: StackKey,
    /// The federated token.
    pub token: TokenUid,
    /// The workload's JWT. It is wiped on drop.
    pub subject_token: Zeroizing<String>,
}

/// Whether a JWT would be exchanged.
#[derive(Debug, Default)]
pub struct Explanation {
    /// Why the JWT would not be exchanged, the most fundamental obstacle first.
    pub obstacles: BTreeSet<Obstacle>,
    /// The result of each rule. Empty if the JWT does not verify or is not from the token's issuer.
    pub rules: Vec<RuleOutcome>,
    /// How long the session would last. `None` if there is an obstacle.
    pub session_for: Option<Duration>,
    /// Description of the workload. Empty if the JWT does not verify.
    pub subject: String,
}

impl Explanation {
    fn only(obstacle: Obstacle) -> Self {
        Self {
            obstacles: BTreeSet::from([obstacle]),
            ..Self::default()
        }
    }
}

impl App {
    /// Explains whether a JWT would be exchanged for a session of this token.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is not federated, or if the caller exceeds the
    /// rate limit on explanations.
    pub async fn explain_exchange(
        &self,
        call: &Call,
        command: &ExplainExchange,
    ) -> Result<Explanation, Error> {
        let done = self.explain(call, command).await;
        if let Err(Error::Refused(refusal)) = &done {
            let about = about((&command.stack_key, command.token));
            self.note_refusal(call, AuditAction::TokenExplainExchange, about, refusal);
        }
        done
    }

    async fn explain(&self, call: &Call, command: &ExplainExchange) -> Result<Explanation, Error> {
        self.explained.admit(&call.caller.actor)?;
        let (key, uid) = (&command.stack_key, command.token);
        let token = self.store.get(call, key, uid).await?;
        let Some(federation) = token.federation.clone() else {
            return Err(Refusal::Invalid(not_federated()).into());
        };
        match self.workloads.verifier.verify(&command.subject_token).await {
            Err(Unverified::KeysUnavailable) => Err(Error::KeysUnavailable),
            Err(Unverified::Invalid) => Ok(Explanation::only(Obstacle::JwtInvalid)),
            Ok(verified) => {
                let about = (&token, &federation, &verified);
                self.explain_verified(call, command, about).await
            }
        }
    }

    async fn explain_verified(
        &self,
        call: &Call,
        command: &ExplainExchange,
        (token, federation, verified): (&Token, &Federation, &Verified),
    ) -> Result<Explanation, Error> {
        let workload = &verified.workload;
        let mut explained = Explanation {
            subject: workload.subject_description.clone(),
            ..Explanation::default()
        };
        if !verified.is_valid_now {
            explained.obstacles.insert(Obstacle::JwtExpired);
        }
        self.explain_rules(&mut explained, (token, federation, workload));
        let assertion = self.assertion_to_find(&mut explained, workload);
        let key = (&command.stack_key, command.token);
        let asked = (assertion, workload.subject_description.as_str());
        let now = self.clock.now();
        let sessions = self.store.sessions_now(call, key, asked, now).await?;
        let (limits, resumes_until) = (self.sessions, sessions.resumes_until);
        let full = sessions.of_token >= limits.of_token || sessions.of_subject >= limits.of_subject;
        let is_new = resumes_until.is_none();
        let state = token.state(now);
        for (obstacle, holds) in [
            (Obstacle::TokenRevoked, state == TokenState::Revoked),
            (Obstacle::TokenExpired, state == TokenState::Expired),
            (Obstacle::StackSuspended, sessions.suspended),
            (Obstacle::JwtReplayed, sessions.exchanged && is_new),
            (Obstacle::SessionLimit, full && is_new),
        ] {
            if holds {
                explained.obstacles.insert(obstacle);
            }
        }
        if explained.obstacles.is_empty() {
            let end = resumes_until
                .unwrap_or_else(|| end_of_session(federation, None, token.expires_at, now));
            explained.session_for = Some(end.since(now));
        }
        Ok(explained)
    }

    /// Returns the key under which an exchange would record the assertion; `None` if the issuer's
    /// assertions are reusable. If they are not, adds an obstacle if the assertion has no id.
    fn assertion_to_find(
        &self,
        explained: &mut Explanation,
        workload: &Workload,
    ) -> Option<Fingerprint> {
        // Uses the issuer of the assertion, as an exchange does, even if the token trusts another
        // issuer.
        let issuer = self.workloads.issuers.get(&workload.issuer)?;
        if issuer.replay == Replay::Reusable {
            return None;
        }
        let key = workload.assertion_key();
        if key.is_none() {
            explained.obstacles.insert(Obstacle::JwtInvalid);
        }
        key
    }

    /// Adds the obstacles that arise from the issuer and the rules.
    fn explain_rules(
        &self,
        explained: &mut Explanation,
        (token, federation, workload): (&Token, &Federation, &Workload),
    ) {
        let Some(issuer) = self.workloads.issuers.get(&federation.issuer) else {
            explained.obstacles.insert(Obstacle::IssuerNotConfigured);
            return;
        };
        if !issuer.serves(&token.stack_key) {
            explained.obstacles.insert(Obstacle::StackNotAllowed);
        }
        match compare(issuer, token, workload) {
            Err(obstacle) => {
                explained.obstacles.insert(obstacle);
            }
            Ok(evaluation) => {
                explained.obstacles.extend(obstacle_of(&evaluation));
                explained.rules = evaluation.outcomes;
            }
        }
    }
}

fn not_federated() -> Violations {
    let mut faults = Violations::default();
    let problem =
        "is not federated, so nothing is exchanged for its secret: name a federated token";
    faults.add("token_uid", Problem::new(problem));
    faults
}
