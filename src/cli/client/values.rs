//! Parses the flag values of the client commands. If a value is wrong, the command exits with the
//! exit code for usage errors before it sends anything.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    cli::exit::ExitError,
    config,
    domain::{
        field::Problem,
        id::{self, TokenUid},
        timestamp::Timestamp,
    },
    grpc::pb::v1::{self, expiry::Expiry},
};

/// An access level, either of a whole token or of a token within one module.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Access {
    Read,
    ReadWrite,
}

impl Access {
    /// Converts the level to its protobuf enum value.
    pub fn to_message(self) -> i32 {
        match self {
            Self::Read => v1::Access::Read.into(),
            Self::ReadWrite => v1::Access::ReadWrite.into(),
        }
    }
}

/// Builds permissions. Restricts them only to the modules, branches and aliases that are given.
pub fn permissions(
    access: Access,
    grants: Vec<v1::ModuleGrant>,
    [branches, aliases]: [Vec<String>; 2],
) -> v1::Permissions {
    let narrowed = !branches.is_empty() || !aliases.is_empty();
    v1::Permissions {
        access: access.to_message(),
        modules: (!grants.is_empty()).then_some(v1::ModuleGrants { grants }),
        branches: narrowed.then_some(v1::BranchGrants { branches, aliases }),
    }
}

/// When a token expires.
#[derive(Clone, Debug, PartialEq)]
pub enum Expires {
    Now,
    Never,
    After(Duration),
    OnDate(String),
    At(Timestamp),
}

impl Expires {
    /// Converts to the protobuf message. A relative expiry is sent unchanged. The server resolves
    /// it when it decides the request, so the clock of this machine does not matter.
    pub fn to_message(&self) -> v1::Expiry {
        let expiry = match self {
            Self::Now => Expiry::Now(true),
            Self::Never => Expiry::Never(true),
            Self::After(time) => Expiry::After(length(*time)),
            Self::OnDate(date) => Expiry::OnDate(date.clone()),
            Self::At(instant) => Expiry::At(timestamp(*instant)),
        };
        v1::Expiry {
            expiry: Some(expiry),
        }
    }
}

impl Expires {
    /// Checks that a date or an instant is in the future according to the clock of this machine.
    /// Otherwise, a mistyped year could end a live token permanently.
    ///
    /// # Errors
    /// Returns an error that names `--expires`.
    pub fn require_future(&self, now: Timestamp) -> anyhow::Result<()> {
        let (text, at) = match self {
            Self::OnDate(date) => (date.clone(), Timestamp::start_of_date(date)),
            Self::At(instant) => (instant.to_string(), Some(*instant)),
            Self::Now | Self::Never | Self::After(_) => return Ok(()),
        };
        if at.is_none_or(|at| at > now) {
            return Ok(());
        }
        let message = format!(
            "--expires {text} is not in the future and would end the token for good: give a later \
             date, or now if you mean that"
        );
        Err(ExitError::usage(message).into())
    }
}

fn timestamp(instant: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: instant.seconds(),
        nanos: instant.nanos(),
    }
}

/// Converts a duration. If it is too long for the message, returns the longest possible duration,
/// which the server refuses.
pub fn length(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}

/// A point in time in a list filter: an instant, or a duration relative to now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    Distance(Duration),
    At(Timestamp),
}

impl Moment {
    /// Returns the instant. A duration is added to `now`.
    pub fn ahead_of(self, now: Timestamp) -> prost_types::Timestamp {
        timestamp(match self {
            Self::Distance(length) => now.plus(length),
            Self::At(instant) => instant,
        })
    }

    /// Returns the instant. A duration is subtracted from `now`.
    pub fn before(self, now: Timestamp) -> prost_types::Timestamp {
        timestamp(match self {
            Self::Distance(length) => now.minus(length),
            Self::At(instant) => instant,
        })
    }
}

/// Parses a duration such as `30d`, a date, or an RFC 3339 timestamp.
pub fn moment(text: &str) -> Result<Moment, &'static str> {
    if let Ok(length) = config::duration(text) {
        return Ok(Moment::Distance(length));
    }
    let instant = Timestamp::start_of_date(text).or_else(|| Timestamp::parse(text));
    instant
        .map(Moment::At)
        .ok_or(
        "expected a duration such as 30d (units: s, m for minutes, h, d, w), a date YYYY-MM-DD or an RFC \
         3339 instant",
    )
}

/// Parses how long the former secret of a token stays valid.
pub fn overlap(text: &str) -> Result<Duration, &'static str> {
    const LONGEST: Duration = Duration::from_hours(30 * 24);
    let length = config::duration(text).ok();
    let length = length.filter(|length| *length <= LONGEST);
    length
        .ok_or("expected a duration from 0s to 30d, such as 7d (units: s, m for minutes, h, d, w)")
}

/// Parses `never`, a duration from now such as `90d`, a date, or an RFC 3339 timestamp.
pub fn expires(text: &str) -> Result<Expires, &'static str> {
    if text == "never" {
        return Ok(Expires::Never);
    }
    if let Ok(length) = config::duration(text) {
        return Ok(Expires::After(length));
    }
    if Timestamp::start_of_date(text).is_some() {
        return Ok(Expires::OnDate(text.to_owned()));
    }
    Timestamp::parse(text).map(Expires::At).ok_or(
        "expected never, a duration from now such as 90d (units: s, m for minutes, h, d, w), a date \
         YYYY-MM-DD or an RFC 3339 instant",
    )
}

/// Parses the new expiry of an existing token, for which `now` is accepted too.
pub fn changed_expires(text: &str) -> Result<Expires, &'static str> {
    if text == "now" {
        return Ok(Expires::Now);
    }
    expires(text).map_err(|_| {
        "expected now, never, a duration from now such as 90d (units: s, m for minutes, h, d, w), a date \
         YYYY-MM-DD or an RFC 3339 instant"
    })
}

/// Parses the id of a token.
pub fn token_uid(text: &str) -> Result<TokenUid, Problem> {
    id::parse(text)
}

/// Parses a module grant of the form `NAME:read` or `NAME:read-write`.
pub fn grant(text: &str) -> Result<v1::ModuleGrant, &'static str> {
    let (module, access) = match text.split_once(':') {
        Some((module, "read")) => (module, Access::Read),
        Some((module, "read-write")) => (module, Access::ReadWrite),
        _ => return Err("expected NAME:read or NAME:read-write"),
    };
    Ok(v1::ModuleGrant {
        module: module.to_owned(),
        access: access.to_message(),
    })
}

/// Parses a label of the form `KEY=VALUE`.
pub fn label(text: &str) -> Result<(String, String), &'static str> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or("expected KEY=VALUE, such as team=shop")
}

/// Collects labels into a map.
///
/// # Errors
/// Returns an error if a key is given twice, because one of its values would be lost.
pub fn distinct_labels(labels: &[(String, String)]) -> anyhow::Result<BTreeMap<String, String>> {
    distinct("--label", labels)
}

/// Collects facts into a map.
///
/// # Errors
/// Returns an error if a name is given twice, because one of its values would be lost.
pub fn distinct_facts(facts: &[(String, bool)]) -> anyhow::Result<BTreeMap<String, bool>> {
    distinct("--fact", facts)
}

fn distinct<V: Clone>(flag: &str, pairs: &[(String, V)]) -> anyhow::Result<BTreeMap<String, V>> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.insert(key.clone(), value.clone()).is_some() {
            let message = format!("{flag}: {key} is given twice; give it once");
            return Err(ExitError::usage(message).into());
        }
    }
    Ok(map)
}

/// Parses a fact of the form `NAME=VALUE`.
pub fn fact(text: &str) -> Result<(String, bool), &'static str> {
    let (name, value) = text.split_once('=').unwrap_or_default();
    match value.parse() {
        Ok(value) if !name.is_empty() => Ok((name.to_owned(), value)),
        _ => Err("expected NAME=true or NAME=false, such as has_approvers=false"),
    }
}

/// A part of a response that is included only on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Include {
    /// What the token may do
    Permissions,
    /// The token's stack
    Stack,
    /// Name, generation and times of the token
    Token,
    /// Labels of the token
    Labels,
    /// Session of a federated token
    Session,
}

impl Include {
    /// Converts the part to its protobuf enum value.
    pub fn to_message(self) -> i32 {
        match self {
            Self::Permissions => v1::IntrospectInclude::Permissions.into(),
            Self::Stack => v1::IntrospectInclude::Stack.into(),
            Self::Token => v1::IntrospectInclude::Token.into(),
            Self::Labels => v1::IntrospectInclude::Labels.into(),
            Self::Session => v1::IntrospectInclude::Session.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_never_a_time_from_now_a_date_or_an_instant() {
        let days = |days: u64| Expires::After(Duration::from_hours(24 * days));
        for (text, expected) in [
            ("never", Some(Expires::Never)),
            ("90d", Some(days(90))),
            ("1d 12h", Some(Expires::After(Duration::from_hours(36)))),
            ("2027-02-28", Some(Expires::OnDate("2027-02-28".into()))),
            (
                "1970-01-01T00:01:00Z",
                Timestamp::from_micros(60_000_000).map(Expires::At),
            ),
            ("6M", None),
            ("1y", None),
            ("1day", None),
            ("2027-02-29", None),
            ("27-02-28", None),
            ("2027-02-28 12:00", None),
            ("-1d", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(expires(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_moment_is_a_distance_from_now_a_date_or_an_instant() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000).unwrap();
        let now = at(1_000_000);
        for (text, ahead, before) in [
            ("1h", 1_003_600, 996_400),
            ("1970-01-02", 86_400, 86_400),
            ("1970-01-01T00:01:00Z", 60, 60),
        ] {
            let moment = moment(text).unwrap();
            assert_eq!(moment.ahead_of(now).seconds, ahead, "{text}");
            assert_eq!(moment.before(now).seconds, before, "{text}");
        }
        for text in ["", "soon", "never", "2027-02-29", "-1h"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_overlap_has_at_most_30_days() {
        for (text, accepted) in [
            ("0s", true),
            ("7d", true),
            ("30d", true),
            ("31d", false),
            ("7", false),
            ("", false),
        ] {
            assert_eq!(overlap(text).is_ok(), accepted, "{text}");
        }
    }

    #[test]
    fn only_the_expiry_of_an_existing_token_can_be_now() {
        assert_eq!(changed_expires("now"), Ok(Expires::Now));
        assert_eq!(changed_expires("never"), Ok(Expires::Never));
        assert!(expires("now").is_err());
    }

    #[test]
    fn a_fact_is_true_or_false() {
        for (text, expected) in [
            ("has_approvers=false", Some(("has_approvers", false))),
            ("x=true", Some(("x", true))),
            ("x=TRUE", None),
            ("x=", None),
            ("x", None),
            ("=true", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value));
            assert_eq!(fact(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_time_from_now_is_sent_as_it_is_and_counted_by_the_server() {
        let after = |text: &str| match expires(text).unwrap().to_message().expiry {
            Some(Expiry::After(length)) => (length.seconds, length.nanos),
            other => panic!("{other:?}"),
        };
        assert_eq!(after("1m"), (60, 0));
        assert_eq!(after("90d"), (90 * 86_400, 0));
        assert_eq!(after("1s 5ms"), (1, 5_000_000));
    }
}
