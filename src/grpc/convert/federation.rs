//! Converts the rules of federated tokens to domain values and back.

use super::{introspection::duration, parse_duration};
use crate::{
    domain::{
        federation::{
            ClaimMatch, ClaimRule, Federation, FederationIssuer, FederationIssuers, Replay,
            provider::{Claim, Pinned, RequiredClaims},
            rules::{DEFAULT_SESSION_FOR, check_session_for},
        },
        field::{Problem, Violations},
        stack::StackKey,
    },
    grpc::pb::v1::{self, claim_rule::Match},
};

/// Parses the federation of a token of this stack. Its issuer must be configured, and its rules
/// must meet the requirements of the issuer's provider.
pub fn parse(
    message: v1::Federation,
    stack: Option<&StackKey>,
    issuers: &FederationIssuers,
) -> Result<Federation, Violations> {
    let mut faults = Violations::default();
    let issuer = faults.keep("issuer", find(&message.issuer, stack, issuers));
    let length = message
        .session_for
        .map_or(Ok(DEFAULT_SESSION_FOR), |length| {
            parse_duration(length).and_then(check_session_for)
        });
    let length = faults.keep("session_for", length);
    let rules = message.rules.into_iter().enumerate().map(|(at, message)| {
        let rule = rule(message);
        faults.nest(&format!("rules[{at}]"), rule)
    });
    let rules: Option<Vec<_>> = rules.collect();
    let parsed = issuer.zip(length).zip(rules);
    let checked = parsed.map(|((issuer, session_for), rules)| {
        let federation = Federation {
            issuer: issuer.name.clone(),
            rules,
            session_for,
        };
        let checked = federation.check(issuer.provider);
        checked.map(|()| federation)
    });
    let checked = checked.and_then(|checked| faults.nest("", checked));
    faults.finish(checked)
}

fn find<'a>(
    name: &str,
    stack: Option<&StackKey>,
    issuers: &'a FederationIssuers,
) -> Result<&'a FederationIssuer, Problem> {
    if name.is_empty() {
        let problem = "is required: a name that ListFederationIssuers returns";
        return Err(Problem::new(problem));
    }
    let served = |issuer: &&FederationIssuer| stack.is_none_or(|stack| issuer.serves(stack));
    issuers.get(name).filter(served).ok_or_else(|| {
        let problem = "is not an issuer that the operator has configured for this stack: use a name that ListFederationIssuers returns";
        Problem::new(problem)
    })
}

fn rule(message: v1::ClaimRule) -> Result<ClaimRule, Violations> {
    let mut faults = Violations::default();
    let matches = match message.r#match {
        Some(Match::Equals(text)) => Some(ClaimMatch::Equals(text)),
        Some(Match::Prefix(text)) => Some(ClaimMatch::Prefix(text)),
        None => {
            faults.add(
                "",
                Problem::new("must say how the claim is compared: set equals or prefix"),
            );
            None
        }
    };
    faults.finish(matches.map(|matches| ClaimRule {
        path: message.path,
        matches,
    }))
}

/// Builds the message of a federation.
pub fn message(federation: &Federation) -> v1::Federation {
    v1::Federation {
        issuer: federation.issuer.clone(),
        rules: federation.rules.iter().map(rule_message).collect(),
        session_for: Some(duration(federation.session_for)),
    }
}

pub(super) fn rule_message(rule: &ClaimRule) -> v1::ClaimRule {
    let compared = match &rule.matches {
        ClaimMatch::Equals(text) => Match::Equals(text.clone()),
        ClaimMatch::Prefix(text) => Match::Prefix(text.clone()),
    };
    v1::ClaimRule {
        path: rule.path.clone(),
        r#match: Some(compared),
    }
}

/// Builds the message of a configured issuer.
pub fn issuer(issuer: &FederationIssuer) -> v1::FederationIssuer {
    let example = Federation {
        issuer: issuer.name.clone(),
        rules: issuer.provider.example(),
        session_for: DEFAULT_SESSION_FOR,
    };
    v1::FederationIssuer {
        name: issuer.name.clone(),
        provider: issuer.provider.name().to_owned(),
        audience: issuer.audience.clone(),
        single_use: issuer.replay == Replay::Once,
        required_claims: issuer.provider.required().iter().map(required).collect(),
        example: Some(message(&example)),
    }
}

/// Describes which claims are required, and why.
fn required(required: &RequiredClaims) -> String {
    let of_one = |claims: &&[Claim]| {
        let claims: Vec<_> = claims.iter().map(claim).collect();
        claims.join(" and ")
    };
    let ways: Vec<_> = required.any_of.iter().map(of_one).collect();
    format!("{}, because {}", ways.join(", or "), required.reason)
}

fn claim(claim: &Claim) -> String {
    let path = claim.path.join(" / ");
    match claim.pinned {
        Pinned::EqualsTo(value) => format!("{path} = {value}"),
        _ => path,
    }
}
