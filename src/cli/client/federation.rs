//! Parses and formats the rules of a federated token.

use std::time::Duration;

use clap::Args;

use super::values;
use crate::{
    config,
    domain::federation::rules::{MAX_SESSION_FOR, MIN_SESSION_FOR},
    grpc::pb::v1::{self, claim_rule::Match},
};

/// Makes the token a federated one, which has no secret of its own.
#[derive(Args)]
#[command(next_help_heading = "Federation")]
pub struct FederationFlags {
    /// Let workloads of this issuer exchange their own JWT for a secret that lives for minutes;
    /// `list-issuers` shows the issuers. The token then has no secret of its own
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// What a claim of the workload must be, as in `repository_id=74`; can be repeated, and all must
    /// match. Levels are separated by `/`, as in `kubernetes.io/namespace=cms`; in a name, `~1` is
    /// `/` and `~0` is `~`
    #[arg(long = "claim", value_parser = claim, value_name = "PATH=VALUE", requires = "issuer")]
    claims: Vec<Claim>,
    /// What a claim of the workload must begin with, ending in `/`, `:` or `@`; can be repeated
    #[arg(
        long = "claim-prefix",
        value_parser = claim,
        value_name = "PATH=VALUE",
        requires = "issuer"
    )]
    claim_prefixes: Vec<Claim>,
    /// How long a secret of a workload lives, from 1m to 1h. Default: 15m
    #[arg(long, value_parser = session_for, value_name = "TIME", requires = "issuer")]
    session_for: Option<Duration>,
}

impl FederationFlags {
    /// Returns the message; `None` if the token has a secret of its own.
    pub fn to_message(&self) -> Option<v1::Federation> {
        let issuer = self.issuer.as_ref()?;
        Some(message(
            issuer,
            [&self.claims, &self.claim_prefixes],
            self.session_for,
        ))
    }
}

/// Builds the message. `equals` are claims that must have exactly this value, and `prefixes` are
/// claims that must begin with it.
pub fn message(
    issuer: &str,
    [equals, prefixes]: [&[Claim]; 2],
    session_for: Option<Duration>,
) -> v1::Federation {
    let equals = equals.iter().map(|claim| claim.rule(Match::Equals));
    let prefixes = prefixes.iter().map(|claim| claim.rule(Match::Prefix));
    v1::Federation {
        issuer: issuer.to_owned(),
        rules: equals.chain(prefixes).collect(),
        session_for: session_for.map(values::length),
    }
}

/// The path of a claim and the text to compare it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    path: Vec<String>,
    value: String,
}

impl Claim {
    fn rule(&self, how: fn(String) -> Match) -> v1::ClaimRule {
        v1::ClaimRule {
            path: self.path.clone(),
            r#match: Some(how(self.value.clone())),
        }
    }
}

/// Parses `PATH=VALUE`. The path is a JSON Pointer (RFC 6901) without the leading slash.
pub fn claim(text: &str) -> Result<Claim, &'static str> {
    const EXPECTED: &str =
        "expected PATH=VALUE, such as repository_id=74 or kubernetes.io/namespace=cms";
    let (path, value) = text.split_once('=').ok_or(EXPECTED)?;
    let names = path
        .split('/')
        .map(|name| name.replace("~1", "/").replace("~0", "~"));
    let path: Vec<_> = names.collect();
    if value.is_empty() || path.iter().any(String::is_empty) {
        return Err(EXPECTED);
    }
    Ok(Claim {
        path,
        value: value.to_owned(),
    })
}

/// Parses the lifetime of a session.
pub fn session_for(text: &str) -> Result<Duration, &'static str> {
    let length = config::duration(text).ok();
    let length = length.filter(|length| (MIN_SESSION_FOR..=MAX_SESSION_FOR).contains(length));
    length.ok_or("expected a duration from 1m to 1h, such as 15m")
}

/// Formats a federation as the flags that `issue` accepts.
pub fn described(federation: &v1::Federation) -> String {
    let mut words = vec![format!("--issuer {}", federation.issuer)];
    words.extend(federation.rules.iter().map(rule));
    if let Some(length) = &federation.session_for {
        words.push(format!("--session-for {}", shown_length(length)));
    }
    words.join(" ")
}

/// Formats a rule as a flag that `issue` accepts.
pub fn rule(rule: &v1::ClaimRule) -> String {
    let (flag, value) = match &rule.r#match {
        Some(Match::Equals(value)) => ("--claim", value.as_str()),
        Some(Match::Prefix(value)) => ("--claim-prefix", value.as_str()),
        None => ("--claim", ""),
    };
    let path = rule.path.iter();
    let path: Vec<_> = path
        .map(|name| name.replace('~', "~0").replace('/', "~1"))
        .collect();
    format!("{flag} {}={value}", path.join("/"))
}

/// Formats a duration in the form that flags accept.
pub fn shown_length(length: &prost_types::Duration) -> String {
    let seconds = u64::try_from(length.seconds).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_a_path_and_a_value() {
        for (text, path, value) in [
            ("repository_id=74", &["repository_id"][..], "74"),
            (
                "kubernetes.io/namespace=cms",
                &["kubernetes.io", "namespace"],
                "cms",
            ),
            (
                "https:~1~1x.example~1roles=a=b",
                &["https://x.example/roles"],
                "a=b",
            ),
            ("a~01=b", &["a~1"], "b"),
        ] {
            let found = claim(text).unwrap();
            assert_eq!(
                (&found.path[..], &*found.value),
                (
                    &path.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..],
                    value
                )
            );
            let shown = rule(&found.rule(Match::Equals));
            assert_eq!(shown, format!("--claim {text}"));
        }
        for wrong in ["", "a", "a=", "=b", "a/=b", "/a=b", "a//b=c"] {
            assert!(claim(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_session_lives_from_a_minute_to_an_hour() {
        for (text, accepted) in [
            ("59s", false),
            ("1m", true),
            ("1h", true),
            ("61m", false),
            ("15", false),
        ] {
            assert_eq!(session_for(text).is_ok(), accepted, "{text}");
        }
        let length = values::length(Duration::from_mins(15));
        assert_eq!(shown_length(&length), "15m");
    }
}
