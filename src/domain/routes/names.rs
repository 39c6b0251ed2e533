//! Recognizes names of headers and query parameters that could add a second credential, or make a
//! server treat a request as a different one. Compares only the letters and digits of a name, as
//! the most lenient server does, so that no spelling escapes the check.

/// Names that carry a second credential.
const CREDENTIALS: [&str; 4] = [
    "access-token",
    "auth-token",
    "x-access-token",
    "x-auth-token",
];
/// Names that override the method or the path of the request.
const OVERRIDES: [&str; 15] = [
    "http-method",
    "http-method-override",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method",
    "x-method-override",
    "x-original-method",
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];
/// Names of headers that affect whether a request is allowed. A query parameter must not have such
/// a name.
const DECIDING: [&str; 3] = ["api-key", "authorization", "branch"];

/// Hashes of [`CREDENTIALS`].
const CREDENTIAL_HASHES: [u64; CREDENTIALS.len()] = hashes(CREDENTIALS);
/// Hashes of [`OVERRIDES`].
const OVERRIDE_HASHES: [u64; OVERRIDES.len()] = hashes(OVERRIDES);
const METHOD: &str = "method";
const METHOD_HASH: u64 = hash(METHOD);

/// Returns whether a name carries a credential other than `authorization`.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    // Most names are not listed, and computing one hash is cheaper than comparing with each listed
    // name.
    CREDENTIAL_HASHES.contains(&hash(name)) && CREDENTIALS.iter().any(|listed| alike(name, listed))
}

/// Returns whether a name overrides the method or the path of the request.
#[must_use]
pub fn is_override(name: &str) -> bool {
    let hash = hash(name);
    if hash == METHOD_HASH {
        // `method` is a common parameter name, and `:method` is the HTTP/2 pseudo-header for the
        // actual method. Neither makes a framework override the method.
        let is_plain = ["method", ":method"]
            .iter()
            .any(|plain| name.eq_ignore_ascii_case(plain));
        return alike(name, METHOD) && !is_plain;
    }
    OVERRIDE_HASHES.contains(&hash) && OVERRIDES.iter().any(|listed| alike(name, listed))
}

/// Returns a hash of the letters and digits of a name, ignoring letter case. Names that are
/// [`alike`] have the same hash.
const fn hash(name: &str) -> u64 {
    let (bytes, mut at) = (name.as_bytes(), 0);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    while at < bytes.len() {
        if bytes[at].is_ascii_alphanumeric() {
            hash ^= bytes[at].to_ascii_lowercase() as u64;
            hash = hash.wrapping_mul(0x0100_0000_01b3);
        }
        at += 1;
    }
    hash
}

const fn hashes<const N: usize>(names: [&str; N]) -> [u64; N] {
    let (mut hashes, mut at) = ([0; N], 0);
    while at < N {
        hashes[at] = hash(names[at]);
        at += 1;
    }
    hashes
}

/// Returns whether a query parameter has a name that is permitted only for a header.
pub(super) fn is_for_headers(name: &str) -> bool {
    let decides = DECIDING.iter().any(|listed| alike(name, listed));
    decides || is_credential(name) || is_override(name)
}

/// Returns whether two names have the same letters and digits, ignoring letter case.
pub(super) fn alike(one: &str, other: &str) -> bool {
    fn bare(name: &str) -> impl Iterator<Item = u8> {
        let bytes = name.bytes().filter(u8::is_ascii_alphanumeric);
        bytes.map(|byte| byte.to_ascii_lowercase())
    }
    bare(one).eq(bare(other))
}

/// Returns whether two header names are equal if letter case is ignored and `_` is read as `-`.
/// This detects different spellings of the same header.
#[must_use]
pub fn is_same_header(one: &str, other: &str) -> bool {
    const fn folded(byte: u8) -> u8 {
        match byte {
            b'_' => b'-',
            other => other.to_ascii_lowercase(),
        }
    }
    one.len() == other.len() && one.bytes().map(folded).eq(other.bytes().map(folded))
}
