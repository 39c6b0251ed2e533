//! Parses an `authorization` value, which must be the scheme `Bearer` and a token.

use super::Rejection;
use crate::domain::secret;

/// Longest `authorization` value that is accepted: 8 KiB.
pub(super) const MAX_VALUE_BYTES: usize = 8 * 1024;

/// Returns the token after the scheme `Bearer`, whose letter case is ignored (RFC 9110 §11.1), and
/// exactly one space (RFC 6750 §2.1).
pub(super) fn bearer(value: &[u8]) -> Result<&str, Rejection> {
    if !value.is_ascii() {
        return Err(Rejection::Invalid("not ASCII"));
    }
    let value = str::from_utf8(value).map_err(|_| Rejection::Invalid("not ASCII"))?;
    // Checks for a management token first, with any scheme, so that the client gets a specific
    // error.
    let mut words = value.split_ascii_whitespace();
    if words
        .by_ref()
        .take(2)
        .any(|word| word.starts_with(secret::PREFIX))
    {
        return Err(Rejection::TokenNotAcceptedHere);
    }
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(Rejection::Invalid("not Bearer, one space and a token")),
    }
}
