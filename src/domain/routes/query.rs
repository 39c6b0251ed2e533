//! Queries that name what a header has to say: whoever reads both could take the other one.

use super::names;

/// What shows the people of a stack in an answer about something else.
const PEOPLE: &str = "include-collaborators";

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// It names a credential, a stack, a branch, a method or a path, or has a name that not
    /// everybody reads alike.
    Ambiguous,
    /// It asks for people, whom only `stack_user.read` may see.
    People,
}

/// Looks at the names in a query; what they are set to is not looked at.
///
/// # Errors
/// [`QueryFault`] for the first name that cannot be taken.
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
    // `branch[]`, `branch.x` and `[branch]` are read as `branch` by some, `api.key` and
    // `api[key` as `api_key` by others.
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
