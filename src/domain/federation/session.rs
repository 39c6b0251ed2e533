//! Rules for the sessions of federated tokens: their end, their permissions, and how a repeated
//! assertion is recognized.

use std::time::Duration;

use super::{Federation, Obstacle, Workload};
use crate::domain::{permissions::Permissions, request::Fingerprint, timestamp::Timestamp};

/// How long an assertion is remembered after its expiry, in addition to the permitted clock skew.
/// This covers the leeway with which an expired assertion is still accepted.
pub const REMEMBERED_FOR: Duration = Duration::from_mins(2);

/// Limits on the number of live sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Maximum per token.
    pub of_token: u32,
    /// Maximum per workload and token.
    pub of_subject: u32,
}

impl Workload {
    /// Returns the key by which a repeated assertion is recognized: a hash of the issuer and the
    /// `jti`. Returns `None` if the assertion has no `jti`.
    #[must_use]
    pub fn assertion_key(&self) -> Option<Fingerprint> {
        let jti = self.jti.as_deref()?;
        Some(of_parts(&[self.issuer.as_bytes(), jti.as_bytes()]))
    }

    /// Returns a fingerprint of the assertion's claims and the request. A retry of an exchange has
    /// the same fingerprint.
    #[must_use]
    pub fn content(&self, request: &[u8]) -> Fingerprint {
        let claims = serde_json::to_vec(&self.claims).unwrap_or_default();
        of_parts(&[&claims, request])
    }
}

fn of_parts(parts: &[&[u8]]) -> Fingerprint {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Fingerprint::of(&bytes)
}

/// Returns when a session that starts at `now` ends. It never ends later than its token.
#[must_use]
pub fn end_of_session(
    federation: &Federation,
    asked: Option<Duration>,
    token_expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let length = asked.map_or(federation.session_for, |asked| {
        asked.min(federation.session_for)
    });
    let end = now.plus(length);
    token_expires_at.map_or(end, |at| at.min(end))
}

/// Returns the permissions of a session: what both the token and `narrow` permit.
///
/// # Errors
/// Returns [`Obstacle::NothingPermitted`] if they have nothing in common.
pub fn permitted(
    token: &Permissions,
    narrow: Option<&Permissions>,
) -> Result<Permissions, Obstacle> {
    let permitted = narrow.map_or_else(|| token.clone(), |narrow| token.cut_by(narrow));
    if permitted.permits_nothing() {
        return Err(Obstacle::NothingPermitted);
    }
    Ok(permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(issuer: &str, jti: Option<&str>) -> Workload {
        Workload {
            issuer: issuer.into(),
            claims: serde_json::Map::new(),
            jti: jti.map(Into::into),
            subject: "s".into(),
            subject_description: "s".into(),
            account_key: String::new(),
            iat: Timestamp::from_micros(0).unwrap(),
            exp: Timestamp::from_micros(1).unwrap(),
        }
    }

    #[test]
    fn an_assertion_is_known_by_its_issuer_and_id() {
        let key = |issuer, jti| workload(issuer, Some(jti)).assertion_key();
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(workload("a", None).assertion_key(), None);
    }

    #[test]
    fn another_claim_or_request_is_another_content() {
        let one = workload("a", Some("b"));
        let mut other = one.clone();
        other.claims.insert("x".into(), 1.into());
        assert_ne!(one.content(b"r"), other.content(b"r"));
        assert_ne!(one.content(b"r"), one.content(b"s"));
    }

    #[test]
    fn a_session_is_as_long_as_asked_and_never_longer_than_its_token() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000).unwrap();
        let federation = Federation {
            issuer: "i".into(),
            rules: Vec::new(),
            session_for: Duration::from_mins(15),
        };
        let end = |asked: Option<u64>, expires_at: Option<i64>| {
            let asked = asked.map(Duration::from_secs);
            end_of_session(&federation, asked, expires_at.map(at), at(0))
        };
        assert_eq!(end(None, None), at(900));
        assert_eq!(end(Some(60), None), at(60));
        assert_eq!(end(Some(3600), None), at(900));
        assert_eq!(end(None, Some(10)), at(10));
    }
}
