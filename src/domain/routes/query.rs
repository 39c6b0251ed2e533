//! Rejects a query that repeats what a header states, because a server could use either of the two.

use super::names;

/// The parameter that adds the people of a stack to any response.
const PEOPLE: &str = "include-collaborators";

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// The query names a credential, a stack, a branch, a method or a path, or has a parameter name
    /// that servers may parse differently.
    Ambiguous,
    /// The query requests data about people, which needs `stack_user.read`.
    People,
}

/// Checks the parameter names of a query. The values are ignored.
///
/// # Errors
/// Returns [`QueryFault`] for the first name that is rejected.
pub fn check_query(query: &str) -> Result<(), QueryFault> {
    query.split(['&', ';']).try_for_each(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        check_name(&decode(name.as_bytes()))
    })
}

fn check_name(name: &str) -> Result<(), QueryFault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.[]$-".contains(&byte);
    if !name.bytes().all(plain) {
        return Err(QueryFault::Ambiguous);
    }
    // Some servers read `branch[]`, `branch.x` and `[branch]` as `branch`. Others read `api.key`
    // and `api[key` as `api_key`.
    let first = name.split(['[', ']', '.']).find(|part| !part.is_empty());
    for name in [name, first.unwrap_or_default()] {
        if names::is_for_headers(name) {
            return Err(QueryFault::Ambiguous);
        }
        if names::alike(name, PEOPLE) {
            return Err(QueryFault::People);
        }
    }
    Ok(())
}

fn decode(mut text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((byte, after)) = text.split_first() {
        let escaped = match (byte, after) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        let byte = if *byte == b'+' { b' ' } else { *byte };
        let (decoded, rest) = escaped.map_or((byte, after), |((high, low), after)| {
            (high * 16 + low, after)
        });
        bytes.push(decoded);
        text = rest;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
