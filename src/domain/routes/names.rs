//! Names of headers and query parameters that could add a second credential, or make a server treat
//! a request as another one. Only letters and digits of a name are compared, as in the most lenient
//! server, so that no spelling escapes the check.

/// Names that carry a second credential.
const CREDENTIALS: [&str; 4] = [
    "access-token",
    "auth-token",
    "x-access-token",
    "x-auth-token",
];
/// Names that override the method or the path of the request.
const OVERRIDES: [&str; 10] = [
    "http-method-override",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];
/// Names that affect whether a request is allowed. They may be stated only in a header or in the
/// request line.
const DECIDING: [&str; 4] = ["api-key", "authorization", "branch", "http-method"];

/// Returns whether a name carries a credential other than `authorization`.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|listed| alike(name, listed))
}

/// Returns whether a name overrides the method or the path of the request.
#[must_use]
pub fn is_override(name: &str) -> bool {
    OVERRIDES.iter().any(|listed| alike(name, listed))
}

/// Returns whether a query parameter states something that only a header or the request line may
/// state.
pub(super) fn is_for_headers(name: &str) -> bool {
    // A plain `method` is a common parameter. Only other spellings are taken for the request's
    // method.
    let is_method = alike(name, "method") && !name.eq_ignore_ascii_case("method");
    let decides = DECIDING.iter().any(|listed| alike(name, listed));
    is_method || decides || is_credential(name) || is_override(name)
}

/// Returns whether two names have the same letters and digits, ignoring letter case.
pub(super) fn alike(one: &str, other: &str) -> bool {
    fn bare(name: &str) -> impl Iterator<Item = u8> {
        let bytes = name.bytes().filter(u8::is_ascii_alphanumeric);
        bytes.map(|byte| byte.to_ascii_lowercase())
    }
    bare(one).eq(bare(other))
}

/// Converts a header name to lower case and `_` to `-`, so that different spellings of one header
/// can be detected.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '_' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}
