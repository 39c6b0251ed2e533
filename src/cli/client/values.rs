//! Parses the flag values of the client commands. If a value is wrong, the command exits with the
//! usage exit code before it sends anything.

use std::time::Duration;

use crate::{
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

/// When a token expires.
#[derive(Clone, Debug, PartialEq)]
pub enum Expires {
    Never,
    In(Duration),
    OnDate(String),
    At(Timestamp),
}

impl Expires {
    /// Converts to the protobuf message. A relative expiry is added to `now`.
    pub fn to_message(&self, now: Timestamp) -> v1::Expiry {
        let expiry = match self {
            Self::Never => Expiry::Never(true),
            Self::In(length) => at(now.plus(*length)),
            Self::OnDate(date) => Expiry::OnDate(date.clone()),
            Self::At(instant) => at(*instant),
        };
        v1::Expiry {
            expiry: Some(expiry),
        }
    }
}

fn at(instant: Timestamp) -> Expiry {
    Expiry::At(prost_types::Timestamp {
        seconds: instant.seconds(),
        nanos: instant.nanos(),
    })
}

/// Parses `never`, a duration from now such as `90d`, a date, or an RFC 3339 timestamp.
pub fn expires(text: &str) -> Result<Expires, &'static str> {
    if text == "never" {
        return Ok(Expires::Never);
    }
    if let Ok(length) = humantime::parse_duration(text) {
        return Ok(Expires::In(length));
    }
    if Timestamp::start_of_date(text).is_some() {
        return Ok(Expires::OnDate(text.to_owned()));
    }
    Timestamp::parse(text).map(Expires::At).ok_or(
        "expected never, a time from now such as 90d, a date YYYY-MM-DD or an RFC 3339 instant",
    )
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

/// Parses a fact of the form `NAME=VALUE`.
pub fn fact(text: &str) -> Result<(String, String), &'static str> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or("expected NAME=true or NAME=false, such as has_approvers=false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_never_a_time_from_now_a_date_or_an_instant() {
        let days = |days: u64| Expires::In(Duration::from_hours(24 * days));
        for (text, expected) in [
            ("never", Some(Expires::Never)),
            ("90d", Some(days(90))),
            ("1day 12h", Some(Expires::In(Duration::from_hours(36)))),
            ("2027-02-28", Some(Expires::OnDate("2027-02-28".into()))),
            (
                "1970-01-01T00:01:00Z",
                Timestamp::from_micros(60_000_000).map(Expires::At),
            ),
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
    fn a_time_from_now_counts_from_now_and_ends_with_the_calendar() {
        let now = Timestamp::from_micros(1_000_000).unwrap();
        let at = |text: &str| match expires(text).unwrap().to_message(now).expiry {
            Some(Expiry::At(at)) => at.seconds,
            other => panic!("{other:?}"),
        };
        assert_eq!(at("1m"), 61);
        assert_eq!(at("500000000000y"), 253_402_300_799, "the year 9999 ends");
    }
}
