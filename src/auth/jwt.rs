//! Parses compact JWTs (RFC 7519, RFC 8725) strictly, and matches them against an entry of the
//! issuers file. This module does not know where keys come from, and never follows a URL in a
//! header.

use std::{collections::HashSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    algorithm::Algorithm,
    issuers::{IssuerEntry, RequiredClaim},
    jwks::SignedMessage,
};
use crate::domain::{
    text::{Subject, WorkloadSubject},
    timestamp::Timestamp,
    unique_json,
};

const WRONG_TYPE: Cause = "typ is neither JWT nor at+jwt";
const LEEWAY: Duration = Duration::from_secs(5);
const MICROS_PER_SECOND: i64 = 1_000_000;
const MAX_KID_CHARS: usize = 256;
/// Maximum length of a subject, in characters. [`Subject`] has the same limit.
const MAX_SUBJECT_CHARS: usize = 255;
/// Maximum length of the subject of a workload, in bytes. [`WorkloadSubject`] has the same limit.
const MAX_WORKLOAD_SUBJECT_BYTES: usize = 1024;
/// Headers that would change how the JWT is interpreted or where its keys come from.
const FORBIDDEN_HEADERS: [&str; 8] = ["crit", "jku", "x5u", "jwk", "x5c", "b64", "zip", "enc"];

/// Why a credential is rejected, for the log. This is a fixed text and never contains a part of the
/// credential.
pub(super) type Cause = &'static str;

/// A JWT whose form is valid. Nothing in the JWT may be trusted until its signature has been
/// checked.
pub(super) struct Jwt<'a> {
    message: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    kid: Option<String>,
    /// Whether `typ` is JOSE, which only a JWT-SVID may have (SPIFFE JWT-SVID §2.3).
    is_jose: bool,
    pub(super) claims: Map<String, Value>,
    pub(super) parsed_at: Timestamp,
    /// Why the JWT is expired or not valid yet. `None` if it is valid now. Only a JWT that is
    /// parsed for an explanation may have a cause here.
    untimely: Option<Cause>,
    /// Whether the JWT is parsed for an explanation only.
    is_explained: bool,
    /// End of validity, including the leeway, in microseconds since the epoch. This is not a
    /// [`Timestamp`], because an issuer may choose a year outside the range of that type.
    pub(super) valid_until_micros: i64,
}

impl<'a> Jwt<'a> {
    /// Parses a JWT, which must be valid now.
    pub(super) fn parse(token: &'a str, now: Timestamp) -> Result<Self, Cause> {
        let mut jwt = Self::parse_untimely_too(token, now)?;
        if let Some(cause) = jwt.untimely {
            return Err(cause);
        }
        jwt.is_explained = false;
        Ok(jwt)
    }

    /// Parses a JWT that may have expired or may not be valid yet.
    pub(super) fn parse_untimely_too(token: &'a str, now: Timestamp) -> Result<Self, Cause> {
        let (message, signature) = token.rsplit_once('.').ok_or("not three segments")?;
        let (header, payload) = message.split_once('.').ok_or("not three segments")?;
        if payload.contains('.') {
            return Err("not three segments");
        }
        if URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err("signature is not unpadded base64url");
        }
        let header = object(header).ok_or("header is not a JSON object in unpadded base64url")?;
        let CheckedHeader {
            algorithm,
            kid,
            is_jose,
        } = check_header(&header)?;
        let claims = object(payload).ok_or("claims are not a JSON object in unpadded base64url")?;
        let (valid_until_micros, untimely) = check_times(&claims, now)?;
        Ok(Self {
            message,
            signature,
            algorithm,
            kid,
            is_jose,
            claims,
            parsed_at: now,
            untimely,
            is_explained: true,
            valid_until_micros,
        })
    }

    /// Returns what is needed to check the signature against a key set.
    pub(super) fn signed(&self, entry: &IssuerEntry) -> SignedMessage<'_> {
        SignedMessage {
            message: self.message,
            signature: self.signature,
            algorithm: self.algorithm,
            kid: self.kid.as_deref(),
            is_svid: entry.is_spiffe(),
        }
    }

    /// Returns whether a workload's JWT is valid now.
    pub(super) fn is_valid_now(&self) -> bool {
        self.untimely.is_none() && !self.is_issued_later()
    }

    pub(super) fn subject(&self) -> &str {
        self.text("sub").unwrap_or_default()
    }

    pub(super) fn is_from(&self, entry: &IssuerEntry) -> bool {
        match self.claims.get("iss") {
            Some(issuer) => issuer.as_str() == Some(&entry.issuer),
            None => entry.is_spiffe(),
        }
    }

    /// Returns how many of these audiences the JWT is for.
    pub(super) fn audiences_among(&self, audiences: &HashSet<String>) -> usize {
        audiences.iter().filter(|one| self.is_for(one)).count()
    }

    /// Checks the audience, the algorithm, the required claims and the subject of the JWT against an
    /// entry of the issuers file. Does not check the issuer and the signature.
    pub(super) fn fits(&self, entry: &IssuerEntry) -> Result<(), Cause> {
        if !self.is_for(&entry.audience) {
            return Err("not for this audience");
        }
        if !entry.algorithms.contains(&self.algorithm) {
            return Err("algorithm not accepted from this issuer");
        }
        if self.is_jose && !entry.is_spiffe() {
            return Err(WRONG_TYPE);
        }
        self.check_subject(entry.workload.is_some())?;
        if entry.workload.is_some() {
            self.life()?;
            if !self.is_explained && self.is_issued_later() {
                return Err("iat is in the future");
            }
        }
        let mut required = entry.required.iter();
        if !required.all(|required| self.has(required)) {
            return Err("a required claim is absent or different");
        }
        Ok(())
    }

    /// Checks the subject, because the audit and the log show it. That of a person or a service must
    /// also fit the rule for members of a stack.
    fn check_subject(&self, is_workload: bool) -> Result<(), Cause> {
        let subject = self.claims.get("sub").ok_or("sub is absent")?;
        let subject = subject.as_str().ok_or("sub is not a string")?;
        if subject.is_empty() {
            return Err("sub is empty");
        }
        if is_workload && subject.len() > MAX_WORKLOAD_SUBJECT_BYTES {
            return Err("sub is longer than 1024 bytes");
        }
        if !is_workload && subject.chars().count() > MAX_SUBJECT_CHARS {
            return Err("sub is longer than 255 characters");
        }
        let parsed = if is_workload {
            WorkloadSubject::parse(subject).map(drop)
        } else {
            Subject::parse(subject).map(drop)
        };
        parsed.map_err(
            |_| "sub contains a character that does not print, a space at an end, or a credential",
        )
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    /// Returns whether the JWT has the required claim. Its path can lead only through objects.
    fn has(&self, RequiredClaim { path, value }: &RequiredClaim) -> bool {
        let Some((claim, within)) = path.split_first() else {
            return false;
        };
        let found = within
            .iter()
            .try_fold(self.claims.get(claim), |found, name| {
                Some(found?.as_object()?.get(name))
            });
        match found.flatten() {
            Some(Value::Array(many)) => many.iter().any(|one| reads(one, value)),
            Some(one) => reads(one, value),
            None => false,
        }
    }
}

fn reads(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Bool(truth) => wanted == if *truth { "true" } else { "false" },
        Value::Number(number) => number.to_string() == wanted,
        _ => false,
    }
}

struct CheckedHeader {
    algorithm: Algorithm,
    kid: Option<String>,
    is_jose: bool,
}

fn check_header(header: &Map<String, Value>) -> Result<CheckedHeader, Cause> {
    if FORBIDDEN_HEADERS
        .iter()
        .any(|name| header.contains_key(*name))
    {
        return Err("a header that is never accepted, such as crit, jku, x5u or jwk");
    }
    let media_type = match header.get("typ") {
        None => None,
        Some(name) => Some(name.as_str().ok_or(WRONG_TYPE)?),
    };
    let is_jose = media_type == Some("JOSE");
    if !is_jose && !media_type.is_none_or(is_jwt) {
        return Err(WRONG_TYPE);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.chars().count() <= MAX_KID_CHARS => Some(kid.clone()),
        Some(_) => return Err("kid is not a string of at most 256 characters"),
    };
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm
        .and_then(Algorithm::from_name)
        .ok_or("alg is not a supported asymmetric algorithm")?;
    Ok(CheckedHeader {
        algorithm,
        kid,
        is_jose,
    })
}

fn is_jwt(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let bare = kind.strip_prefix("application/").unwrap_or(&kind);
    matches!(bare, "jwt" | "at+jwt")
}

pub(super) fn leeway_micros() -> i64 {
    i64::try_from(LEEWAY.as_micros()).unwrap_or_default()
}

/// Returns the end of validity, including the leeway, and the cause if the JWT is not valid now.
fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<(i64, Option<Cause>), Cause> {
    let expires = claims.get("exp").ok_or("exp is absent")?;
    let expires = micros(expires).ok_or("exp is not a number")?;
    let leeway = leeway_micros();
    let valid_until = expires.saturating_add(leeway);
    if valid_until <= now.as_micros() {
        return Ok((valid_until, Some("expired")));
    }
    if let Some(not_before) = claims.get("nbf") {
        let not_before = micros(not_before).ok_or("nbf is not a number")?;
        if not_before > now.as_micros().saturating_add(leeway) {
            return Ok((valid_until, Some("not valid yet")));
        }
    }
    Ok((valid_until, None))
}

/// Converts a `NumericDate` (RFC 7519 §2) to microseconds. Saturates if the date is out of range.
pub(super) fn micros(date: &Value) -> Option<i64> {
    if let Some(seconds) = date.as_i64() {
        return Some(seconds.saturating_mul(MICROS_PER_SECOND));
    }
    let seconds = date.as_f64().filter(|seconds| seconds.is_finite())?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast cuts at the ends of the range, which is what is wanted"
    )]
    Some((seconds * 1e6) as i64)
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(segment).ok()?;
    unique_json::object(&json)
}
