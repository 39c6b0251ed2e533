//! Incident response, without I/O: which tokens to revoke together, the hash that ties a revocation
//! to its preview, and the address at which a leaked secret was found.

use std::fmt;

use super::{
    audit::Details,
    caller::CallerKind,
    field::Problem,
    id::TokenUid,
    request::Fingerprint,
    stack::StackKey,
    text::{Issuer, Reason, Subject},
    timestamp::Timestamp,
};

/// Selects which live tokens of a stack to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeFilter {
    /// All live tokens of the stack.
    All,
    /// The tokens that match every condition that is given.
    Those {
        /// Only tokens that were issued by this caller.
        issued_by: Option<IssuedBy>,
        /// Only tokens that were last used before this instant, or were issued before it and never
        /// used.
        unused_since: Option<Timestamp>,
    },
}

/// Who issued a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedBy {
    /// The kind of the caller that issued the token. `None` matches every kind.
    pub kind: Option<CallerKind>,
    /// The `iss` of the credential.
    pub issuer: Issuer,
    /// The `sub` of the credential.
    pub subject: Subject,
}

impl RevokeFilter {
    /// Returns the filter as audit details, keyed by the field names of the API.
    #[must_use]
    pub fn audit_details(&self) -> Details {
        let mut parts = Details::new();
        let mut put = |name: &str, value: &str| {
            parts.insert(format!("filter.{name}"), value.to_owned());
        };
        match self {
            Self::All => put("all", "true"),
            Self::Those {
                issued_by,
                unused_since,
            } => {
                if let Some(by) = issued_by {
                    put("issued_by.issuer", by.issuer.as_str());
                    put("issued_by.subject", by.subject.as_str());
                    if let Some(kind) = by.kind {
                        put("issued_by.kind", kind.name());
                    }
                }
                if let Some(at) = unused_since {
                    put("unused_since", &at.to_string());
                }
            }
        }
        parts
    }
}

/// A hash of a stack, a filter, and the set of tokens that the filter selects at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviewHash(Fingerprint);

impl PreviewHash {
    /// Computes the hash. `tokens` must be sorted by id.
    #[must_use]
    pub fn of(stack: &StackKey, filter: &RevokeFilter, tokens: &[TokenUid]) -> Self {
        let uids: Vec<_> = tokens.iter().map(ToString::to_string).collect();
        let parts = ("revoke_all", stack.as_str(), filter.audit_details(), uids);
        let bytes = serde_json::to_vec(&parts).unwrap_or_default();
        Self(Fingerprint::of(&bytes))
    }

    /// Parses a hash in the form that a preview returns.
    ///
    /// # Errors
    /// Returns a [`Problem`] for any other text.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(
                "is not a hash of 64 lower-case hexadecimal digits: copy it from the response to the call with validate_only",
            )
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(is_hex) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(Fingerprint::from_bytes(bytes)))
    }
}

impl fmt::Display for PreviewHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.as_bytes().iter();
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The maximum length of an address in characters. The address and the text before it must fit into
/// a revocation reason.
const MAX_CHARS: usize = 450;

/// The http or https address at which a secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundAt(String);

impl FoundAt {
    /// Parses an address. Returns `None` for an empty string.
    ///
    /// # Errors
    /// Returns a [`Problem`] that says what to change and never quotes the address.
    pub fn parse(text: &str) -> Result<Option<Self>, Problem> {
        if text.is_empty() {
            return Ok(None);
        }
        let length = text.chars().count();
        if length > MAX_CHARS {
            let problem = format!("has {length} characters: shorten it to {MAX_CHARS}");
            return Err(Problem::new(problem));
        }
        Reason::parse(text)?;
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        let Some(host) = host.filter(|host| !host.is_empty()) else {
            return Err(Problem::new(
                "must begin with https:// or http:// and a host: send the address where the secret was found, or leave it out",
            ));
        };
        if host.contains('@') {
            return Err(Problem::new(
                "contains a user name or a password: remove it",
            ));
        }
        if text.chars().any(char::is_whitespace) {
            return Err(Problem::new(
                "contains a space: send one URL, with spaces encoded as %20",
            ));
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// Returns the address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the revocation reason for a token whose secret was reported as leaked.
///
/// # Errors
/// Never returns an error, because a parsed address is short enough and contains no secret.
pub fn reason_of_leak(found_at: Option<&FoundAt>) -> Result<Reason, Problem> {
    match found_at {
        None => Reason::parse("reported as leaked"),
        Some(url) => Reason::parse(&format!("reported as leaked at {}", url.as_str())),
    }
}

/// The outcome of a report that a secret leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeakOutcome {
    /// The token was live and is now revoked.
    Revoked,
    /// The token had already been revoked or had expired, or its stack was removed.
    Dead,
    /// The secret had already been replaced by a newer one. The token stays live.
    Superseded,
    /// The secret belonged to a live session of a federated token. The session is now ended; the
    /// token stays live.
    SessionEnded,
    /// No token with this secret exists.
    Unknown,
}

impl LeakOutcome {
    /// Returns the name of the outcome in the audit and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "REVOKED",
            Self::Dead => "DEAD",
            Self::Superseded => "SUPERSEDED",
            Self::SessionEnded => "SESSION_ENDED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id;

    fn key(last: char) -> StackKey {
        StackKey::parse(&format!("blt000000000000000{last}")).unwrap()
    }

    fn uid(last: u8) -> TokenUid {
        id::parse(&format!("018f0000-0000-7000-8000-0000000000{last:02x}")).unwrap()
    }

    fn by(kind: Option<CallerKind>) -> RevokeFilter {
        let issued_by = Some(IssuedBy {
            kind,
            issuer: Issuer::parse("https://login.test").unwrap(),
            subject: Subject::parse("ann").unwrap(),
        });
        RevokeFilter::Those {
            issued_by,
            unused_since: None,
        }
    }

    #[test]
    fn another_stack_filter_or_set_has_another_hash_and_the_same_the_same() {
        let unused = |micros| RevokeFilter::Those {
            issued_by: None,
            unused_since: Timestamp::from_micros(micros),
        };
        let filters = [
            RevokeFilter::All,
            by(None),
            by(Some(CallerKind::User)),
            unused(1),
            unused(2),
        ];
        let sets = [vec![], vec![uid(1)], vec![uid(2)], vec![uid(1), uid(2)]];
        let mut seen: Vec<String> = Vec::new();
        for stack in [key('1'), key('2')] {
            for filter in &filters {
                for set in &sets {
                    let hash = PreviewHash::of(&stack, filter, set);
                    assert_eq!(hash, PreviewHash::of(&stack, filter, set));
                    assert_eq!(PreviewHash::parse(&hash.to_string()), Ok(hash));
                    assert!(!seen.contains(&hash.to_string()));
                    seen.push(hash.to_string());
                }
            }
        }
    }

    #[test]
    fn only_a_hash_as_it_is_written_is_one() {
        let hash = PreviewHash::of(&key('1'), &RevokeFilter::All, &[]).to_string();
        for bad in [
            "",
            &hash[1..],
            &format!("{hash}0"),
            &hash.to_uppercase(),
            &"é".repeat(32),
            &format!("+{}", &hash[1..]),
        ] {
            assert!(PreviewHash::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_kept_as_it_is_and_always_fits_into_a_reason() {
        let longest = format!("https://a.test/{}", "x".repeat(435));
        for good in [
            "https://a.test",
            "http://[::1]:8080/x?y#L3",
            "https://é.test/@ann",
            &longest,
        ] {
            let parsed = FoundAt::parse(good).unwrap().unwrap();
            assert_eq!(parsed.as_str(), good);
            let reason = reason_of_leak(Some(&parsed)).unwrap();
            assert!(reason.as_str().ends_with(good));
        }
        assert_eq!(FoundAt::parse(""), Ok(None));
        assert!(reason_of_leak(None).is_ok());
    }

    #[test]
    fn what_is_no_address_or_holds_a_credential_is_refused_and_not_echoed() {
        let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
        for bad in [
            "a.test",
            "ftp://a.test",
            "javascript:alert(1)",
            "https://",
            "https:///path",
            "https://ann:pw@a.test/",
            "https://a.test/ b",
            "https://a.test/\nb",
            "https://a.test/\u{202e}b",
            &format!("https://a.test/{secret}"),
            &format!("https://a.test/{}", "x".repeat(436)),
        ] {
            let problem = FoundAt::parse(bad).unwrap_err().to_string();
            assert!(!problem.contains("a.test"), "{problem}");
        }
    }
}
