//! Names by which a request could bring a second credential, or pass for another request: one
//! list, whether they come as headers or in a query. Letters and digits decide alone, so that
//! no spelling of a name slips by: the least careful reader compares them like that.

/// A second credential.
const CREDENTIALS: [&str; 4] = [
    "access-token",
    "auth-token",
    "x-access-token",
    "x-auth-token",
];
/// Another method or path than the request's own.
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
/// What decides about a request, and is taken from headers or the request line only.
const DECIDING: [&str; 4] = ["api-key", "authorization", "branch", "http-method"];

/// Whether a name stands for a credential other than `authorization`.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|listed| alike(name, listed))
}

/// Whether a name stands for another method or path than the request's own.
#[must_use]
pub fn is_override(name: &str) -> bool {
    OVERRIDES.iter().any(|listed| alike(name, listed))
}

/// Whether a name of a query stands for what a header or the request line has to say.
pub(super) fn is_for_headers(name: &str) -> bool {
    // A plain `method` is anybody's; only dressed up does it stand for the request's.
    let is_method = alike(name, "method") && !name.eq_ignore_ascii_case("method");
    let decides = DECIDING.iter().any(|listed| alike(name, listed));
    is_method || decides || is_credential(name) || is_override(name)
}

/// Whether two names have the same letters and digits, in whatever case.
pub(super) fn alike(one: &str, other: &str) -> bool {
    fn bare(name: &str) -> impl Iterator<Item = u8> {
        let bytes = name.bytes().filter(u8::is_ascii_alphanumeric);
        bytes.map(|byte| byte.to_ascii_lowercase())
    }
    bare(one).eq(bare(other))
}

/// Lower case, `_` as `-`: two headers of one name are found by it.
#[must_use]
pub fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '_' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}
