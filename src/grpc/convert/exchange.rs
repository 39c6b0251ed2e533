//! Converts the messages for exchanges and sessions to domain values and back.

use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    federation, instant, introspection::duration, named, parse_duration, permissions, tokens,
};
use crate::{
    app::{EndSessions, Exchange, Exchanged, ExplainExchange, Explanation},
    domain::{
        caller::Call,
        catalogue::Catalogue,
        federation::{FederationIssuer, Obstacle, evaluate::RuleOutcome, rules::check_session_for},
        field::{Problem, Violations},
        id,
        revision::Revision,
        stack::StackKey,
        text,
    },
    grpc::pb::v1,
};

/// Maximum length of the description of a workload, in characters.
const MAX_SUBJECT: usize = 255;
/// Maximum length of a JWT, in bytes. Credentials have the same limit.
const MAX_JWT: usize = 8 * 1024;

pub fn exchange(
    message: v1::ExchangeRequest,
    _: &Call,
    catalogue: &Catalogue,
) -> Result<Exchange, Violations> {
    let mut faults = Violations::default();
    let content = message.encode_to_vec();
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let token = faults.keep("token_uid", named(&message.token_uid, id::parse));
    let length = message
        .session_for
        .map(|length| parse_duration(length).and_then(check_session_for));
    let session_for = faults.keep("session_for", length.transpose());
    let narrow = message
        .narrow
        .map(|narrow| permissions::parse(Some(narrow), catalogue));
    let narrow = faults.nest("narrow", narrow.transpose());
    let command = stack_key.zip(token).zip(session_for).zip(narrow);
    faults.finish(
        command.map(|(((stack_key, token), session_for), narrow)| Exchange {
            stack_key,
            token,
            session_for,
            narrow,
            content,
        }),
    )
}

pub fn exchanged(exchanged: &Exchanged) -> v1::ExchangeResponse {
    let session = &exchanged.session;
    v1::ExchangeResponse {
        secret: exchanged.secret.expose().to_owned(),
        expires_at: Some(instant(session.expires_at)),
        token_uid: session.token.to_string(),
        permissions: Some(permissions::message(&session.permissions)),
        revision: exchanged.revision.to_string(),
    }
}

/// Returns the secret of the session to end. It can have any form.
pub fn end_session(
    message: v1::EndSessionRequest,
    _: &Call,
) -> Result<Zeroizing<String>, Violations> {
    let mut faults = Violations::default();
    let secret = Zeroizing::new(message.secret);
    if secret.is_empty() {
        let problem = "is required: the secret of the session, as Exchange returned it";
        faults.add("secret", Problem::new(problem));
    }
    faults.finish(Some(secret))
}

pub fn explain(
    mut message: v1::ExplainExchangeRequest,
    _: &Call,
) -> Result<ExplainExchange, Violations> {
    let mut faults = Violations::default();
    let subject_token = Zeroizing::new(std::mem::take(&mut message.subject_token));
    let key = tokens::key(&mut faults, &message.stack_api_key, &message.token_uid);
    if subject_token.is_empty() {
        let problem = "is required: the JWT of the workload, as its provider issued it";
        faults.add("subject_token", Problem::new(problem));
    }
    if subject_token.len() > MAX_JWT {
        let problem = "is longer than 8 KiB, which no JWT may be";
        faults.add("subject_token", Problem::new(problem));
    }
    faults.finish(key.map(|(stack_key, token)| ExplainExchange {
        stack_key,
        token,
        subject_token,
    }))
}

pub fn explained(explanation: Explanation) -> v1::ExplainExchangeResponse {
    let obstacles = explanation.obstacles.iter().copied().map(obstacle);
    v1::ExplainExchangeResponse {
        would_exchange: explanation.obstacles.is_empty(),
        obstacles: obstacles.map(Into::into).collect(),
        rules: explanation.rules.into_iter().map(outcome).collect(),
        session_for: explanation.session_for.map(duration),
        subject: explanation.subject,
    }
}

fn outcome(outcome: RuleOutcome) -> v1::ClaimRuleResult {
    v1::ClaimRuleResult {
        rule: Some(federation::rule_message(&outcome.rule)),
        presented: outcome.presented,
        matched: outcome.matched,
    }
}

const fn obstacle(obstacle: Obstacle) -> v1::ExchangeObstacle {
    match obstacle {
        Obstacle::JwtInvalid => v1::ExchangeObstacle::JwtInvalid,
        Obstacle::JwtExpired => v1::ExchangeObstacle::JwtExpired,
        Obstacle::OtherIssuer => v1::ExchangeObstacle::OtherIssuer,
        Obstacle::StackNotAllowed => v1::ExchangeObstacle::StackNotAllowed,
        Obstacle::IssuerNotConfigured => v1::ExchangeObstacle::IssuerNotConfigured,
        Obstacle::RuleNotMatched => v1::ExchangeObstacle::RuleNotMatched,
        Obstacle::EventRefused => v1::ExchangeObstacle::EventRefused,
        Obstacle::TokenRevoked => v1::ExchangeObstacle::TokenRevoked,
        Obstacle::TokenExpired => v1::ExchangeObstacle::TokenExpired,
        Obstacle::StackSuspended => v1::ExchangeObstacle::StackSuspended,
        Obstacle::JwtReplayed => v1::ExchangeObstacle::JwtReplayed,
        Obstacle::SessionLimit => v1::ExchangeObstacle::SessionLimit,
        // An explanation never has these obstacles, because they depend on fields that only an
        // exchange request contains.
        Obstacle::NoSuchToken | Obstacle::Ambiguous | Obstacle::NothingPermitted => {
            v1::ExchangeObstacle::Unspecified
        }
    }
}

pub fn list_issuers(
    message: v1::ListFederationIssuersRequest,
    _: &Call,
) -> Result<StackKey, Violations> {
    let mut faults = Violations::default();
    let stack = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    faults.finish(stack)
}

pub fn listed_issuers(issuers: &[FederationIssuer]) -> v1::ListFederationIssuersResponse {
    v1::ListFederationIssuersResponse {
        issuers: issuers.iter().map(federation::issuer).collect(),
    }
}

pub fn end_sessions(message: v1::EndSessionsRequest, _: &Call) -> Result<EndSessions, Violations> {
    let mut faults = Violations::default();
    let key = tokens::key(&mut faults, &message.stack_api_key, &message.token_uid);
    let subject = faults.keep("subject", named(&message.subject, check_subject));
    faults.finish(
        key.zip(subject)
            .map(|((stack_key, token), subject)| EndSessions {
                stack_key,
                token,
                subject,
            }),
    )
}

fn check_subject(text: &str) -> Result<String, Problem> {
    if text.chars().any(text::is_unprintable) {
        let problem = "contains a character that does not print, which no subject of a session has: \
                       copy it from the audit or from `session.subject` of a verdict";
        return Err(Problem::new(problem));
    }
    let length = text.chars().count();
    if length > MAX_SUBJECT {
        let problem =
            format!("has {length} characters: the subject of a session has at most {MAX_SUBJECT}");
        return Err(Problem::new(problem));
    }
    Ok(text.to_owned())
}

pub fn ended_sessions(count: u32, revision: Option<Revision>) -> v1::EndSessionsResponse {
    v1::EndSessionsResponse {
        count,
        revision: super::revision(revision),
    }
}
