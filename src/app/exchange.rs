//! Exchanges a workload's JWT for a session of a federated token, and ends sessions. The caller of
//! an exchange never learns why it is refused. The audit records the cause.

use std::{num::NonZeroU32, time::Duration};

use super::{
    App, Error, Rate,
    tokens::{about, about_stack, new_secret},
};
use crate::{
    domain::{
        audit::AuditAction,
        caller::Call,
        federation::{
            FederationIssuer, FederationIssuers, Obstacle, Replay, Workload,
            evaluate::{Evaluation, evaluate},
            session::REMEMBERED_FOR,
        },
        id::{StackUid, TokenUid},
        permissions::Permissions,
        refusal::Refusal,
        revision::Revision,
        secret::Secret,
        stack::StackKey,
        timestamp::Timestamp,
        token::{Token, TokenState},
    },
    store::{Candidates, EndSessions, SingleUse, StartSession, StartedSession},
};

/// Rate limit on the explanations that one caller requests. Each explanation verifies a signature,
/// which is expensive.
pub(super) const EXPLAINED: Rate = Rate {
    per_second: NonZeroU32::MIN,
    burst: NonZeroU32::new(20).unwrap(),
};

/// A workload's request for a session.
pub struct Exchange {
    /// The stack.
    pub stack_key: StackKey,
    /// The federated token. `None` if exactly one token of the stack must match.
    pub token: Option<TokenUid>,
    /// Maximum lifetime of the session that the caller requests.
    pub session_for: Option<Duration>,
    /// Permissions to which the caller restricts the session.
    pub narrow: Option<Permissions>,
    /// The encoded request, by which a repeated request is recognized.
    pub content: Vec<u8>,
}

/// A session that was started, with its secret, which is shown only once (R9).
pub struct Exchanged {
    /// The session.
    pub session: StartedSession,
    /// Its secret.
    pub secret: Secret,
    /// Revision that includes the session.
    pub revision: Revision,
}

impl App {
    /// Returns the issuers of workloads' JWTs that the operator has configured.
    #[must_use]
    pub fn federation_issuers(&self) -> &FederationIssuers {
        &self.workloads.issuers
    }

    /// Exchanges the JWT of a workload for a session.
    ///
    /// # Errors
    /// [`Error`]. The refusal is [`Refusal::ExchangeRefused`] whatever the cause, for example a
    /// token that does not exist, does not match or is dead.
    pub async fn exchange(&self, call: &Call, command: &Exchange) -> Result<Exchanged, Error> {
        let done = self.start_session(call, command).await;
        if let Err(Error::Refused(refusal)) = &done {
            // Anyone can send any stack key. Only a refusal about a stack that has a federated
            // token is audited, so that a caller cannot fill the audit with invented keys.
            if refusal.obstacle() != Some(Obstacle::NoSuchToken) {
                let mut about = about_stack(&command.stack_key);
                about.token_uid = command.token.map(|uid| uid.to_string());
                self.note_refusal(call, AuditAction::TokenExchange, about, refusal);
            }
        }
        done
    }

    async fn start_session(&self, call: &Call, command: &Exchange) -> Result<Exchanged, Error> {
        let workload = call.caller.workload.as_deref();
        let workload = workload
            .ok_or_else(|| Error::Internal("an exchange by a caller that is no workload".into()))?;
        let (now, key) = (self.clock.now(), (&command.stack_key, command.token));
        let found = self.store.federated_tokens(call, key, now).await?;
        let refused = Refusal::ExchangeRefused;
        let found = found.ok_or(refused(Obstacle::NoSuchToken))?;
        let (issuer, token) = self
            .choose(&found, (&command.stack_key, workload), now)
            .map_err(refused)?;
        let start = self
            .session_to_start((command, workload), (found.stack, issuer, token))
            .map_err(refused)?;
        let secret = Secret::generate(self.entropy.as_ref())?;
        let done = self
            .store
            .exchange(call, &start, &new_secret(&secret))
            .await;
        self.note_change(call, &done);
        let (session, revision) = done?;
        let about = about((&command.stack_key, session.token));
        super::log_change(AuditAction::TokenExchange, &about, revision);
        Ok(Exchanged {
            session,
            secret,
            revision,
        })
    }

    /// Returns the workload's issuer, and the only live token that admits the workload.
    fn choose<'a>(
        &self,
        found: &'a Candidates,
        (stack, workload): (&StackKey, &Workload),
        now: Timestamp,
    ) -> Result<(&FederationIssuer, &'a Token), Obstacle> {
        let issuer = self.workloads.issuers.get(&workload.issuer);
        let issuer = issuer.ok_or(Obstacle::IssuerNotConfigured)?;
        if !issuer.serves(stack) {
            return Err(Obstacle::StackNotAllowed);
        }
        let mut closest = Obstacle::OtherIssuer;
        let mut matching = Vec::new();
        for token in &found.tokens {
            match compare(issuer, token, workload) {
                Ok(evaluation) => match obstacle_of(&evaluation) {
                    None => matching.push(token),
                    Some(obstacle) => closest = closest.max(obstacle),
                },
                Err(obstacle) => closest = closest.max(obstacle),
            }
        }
        let (live, dead): (Vec<&Token>, Vec<&Token>) = matching
            .into_iter()
            .partition(|token| token.state(now) == TokenState::Active);
        match (live.as_slice(), dead.first()) {
            ([token], _) => Ok((issuer, token)),
            ([], None) => Err(closest),
            ([], Some(token)) if token.revocation.is_some() => Err(Obstacle::TokenRevoked),
            ([], Some(_)) => Err(Obstacle::TokenExpired),
            _ => Err(Obstacle::Ambiguous),
        }
    }

    fn session_to_start(
        &self,
        (command, workload): (&Exchange, &Workload),
        (stack, issuer, token): (StackUid, &FederationIssuer, &Token),
    ) -> Result<StartSession, Obstacle> {
        let once = match issuer.replay {
            Replay::Reusable => None,
            Replay::Once => Some(SingleUse {
                key: workload.assertion_key().ok_or(Obstacle::JwtInvalid)?,
                content: workload.content(&command.content),
                expires_at: workload.exp.plus(REMEMBERED_FOR),
            }),
        };
        Ok(StartSession {
            stack,
            token: token.uid,
            federation: token.federation.clone().ok_or(Obstacle::NoSuchToken)?,
            subject: workload.subject_description.clone(),
            session_for: command.session_for,
            narrow: command.narrow.clone(),
            once,
            limits: self.sessions,
        })
    }

    /// Ends sessions of a federated token. Returns how many it ended.
    ///
    /// # Errors
    /// [`Error`]. The call is refused if the token is dead (R8).
    pub async fn end_sessions(
        &self,
        call: &Call,
        command: &EndSessions,
    ) -> Result<(u32, Option<Revision>), Error> {
        let done = self.store.end_sessions(call, command).await;
        let place = (
            AuditAction::TokenEndSessions,
            about((&command.stack_key, command.token)),
        );
        if let Ok((0, revision)) = done {
            return Ok((0, (!call.previews()).then_some(revision)));
        }
        self.note_change(call, &done);
        self.settle_change(call, place, done)
    }

    /// Returns the issuers that tokens of this stack may trust.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_federation_issuers(
        &self,
        call: &Call,
        stack: &StackKey,
    ) -> Result<Vec<FederationIssuer>, Error> {
        let done = self.store.require_access(call, stack).await;
        let place = (AuditAction::TokenListFederationIssuers, about_stack(stack));
        self.settle(call, place, done)?;
        Ok(self.workloads.issuers.of_stack(stack).cloned().collect())
    }
}

/// Compares a workload with the rules of a token.
///
/// # Errors
/// Returns [`Obstacle::OtherIssuer`] if the token trusts another issuer, and
/// [`Obstacle::IssuerNotConfigured`] if the rules are not valid for the issuer's provider.
pub(super) fn compare(
    issuer: &FederationIssuer,
    token: &Token,
    workload: &Workload,
) -> Result<Evaluation, Obstacle> {
    let federation = token.federation.as_ref().ok_or(Obstacle::NoSuchToken)?;
    if federation.issuer != workload.issuer {
        return Err(Obstacle::OtherIssuer);
    }
    // The operator may have changed the issuer's provider since the token was issued. Rules that
    // were written for another provider could admit a workload that the owner did not intend.
    if federation.check(issuer.provider).is_err() {
        return Err(Obstacle::IssuerNotConfigured);
    }
    let (rules, claims) = (&federation.rules, &workload.claims);
    Ok(evaluate(issuer.provider, rules, claims))
}

/// Returns why the rules do not admit a workload; `None` if they do.
pub(super) fn obstacle_of(evaluation: &Evaluation) -> Option<Obstacle> {
    if evaluation.admits() {
        None
    } else if evaluation.outcomes.iter().all(|outcome| outcome.matched) {
        Some(Obstacle::EventRefused)
    } else {
        Some(Obstacle::RuleNotMatched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        federation::{Federation, Provider},
        token::tests::token,
    };

    /// Tests an issuer whose provider the operator changed after the token was issued.
    #[test]
    fn rules_that_another_provider_accepted_admit_nobody() {
        let mut token = token(None);
        token.federation = Some(Federation {
            issuer: "ci".to_owned(),
            rules: Provider::Generic.example(),
            session_for: Duration::from_mins(15),
        });
        let claims = serde_json::json!({ "sub": "publisher", "event_name": "push" });
        let workload = Workload {
            issuer: "ci".to_owned(),
            claims: claims.as_object().cloned().unwrap(),
            jti: None,
            subject: "publisher".to_owned(),
            subject_description: "publisher".to_owned(),
            account_key: String::new(),
            iat: Timestamp::from_micros(0).unwrap(),
            exp: Timestamp::from_micros(1).unwrap(),
        };
        let compared = |provider: Provider| {
            let issuer = FederationIssuer {
                name: "ci".to_owned(),
                provider,
                audience: "stacktoken".to_owned(),
                replay: Replay::Reusable,
                stacks: None,
            };
            compare(&issuer, &token, &workload).map(|found| found.admits())
        };
        assert_eq!(compared(Provider::Generic), Ok(true));
        let refused = Err(Obstacle::IssuerNotConfigured);
        assert_eq!(compared(Provider::GithubActions), refused);
    }
}
