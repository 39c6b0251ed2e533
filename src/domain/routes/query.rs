//! Rejects a query with a parameter that repeats a header, because a server could use either value.
//! Also determines what a query requires in addition to the actions of the route.

use std::collections::BTreeSet;

use super::names;
use crate::domain::text;

/// The parameter that adds the people of a stack to any response.
const PEOPLE: &str = "include_collaborators";
/// The parameter that adds credentials of a stack to the response.
const CREDENTIALS: &str = "include_discrete_variables";
/// The action that a request with [`CREDENTIALS`] needs.
const READ_CREDENTIALS: &str = "stack.read_credentials";
/// The parameters that name the branches to compare or to merge.
const BRANCHES: [&str; 2] = ["base_branch", "compare_branch"];
/// The maximum number of branches in a query. No request of the API needs more than two.
const MAX_BRANCHES: usize = 4;

/// What a query adds to the requirements of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Actions that the request needs in addition to the actions of its route.
    pub actions: Vec<&'static str>,
    /// Branches that the request affects in addition to the branch of its header.
    pub branches: BTreeSet<String>,
}

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFault {
    /// The query names a credential, a stack, a branch, a method or a path, or has a parameter name
    /// that servers may parse differently.
    Ambiguous,
    /// The query requests data about people, which needs `stack_user.read`.
    People,
    /// The name of a branch to compare or merge is invalid.
    Branch,
}

/// Checks a query.
///
/// # Errors
/// Returns [`QueryFault`] for the first parameter that is rejected.
pub fn check_query(query: &str) -> Result<Query, QueryFault> {
    let mut found = Query::default();
    let mut declined = Vec::new();
    for pair in query.split('&') {
        // `name=false` adds nothing to the response if it occurs once and in this exact form. If it
        // occurs twice, a server could read a list, which it does not treat as false.
        let is_declined = [PEOPLE, CREDENTIALS]
            .into_iter()
            .find(|name| pair.strip_prefix(name) == Some("=false"));
        match is_declined {
            Some(name) if !declined.contains(&name) => declined.push(name),
            _ => pair
                .split(';')
                .try_for_each(|part| check_pair(part, pair, &mut found))?,
        }
    }
    Ok(found)
}

/// Checks a parameter. `whole` is the parameter as a server reads it that does not split at `;`.
fn check_pair(pair: &str, whole: &str, found: &mut Query) -> Result<(), QueryFault> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = decode(name.as_bytes());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.[]$-".contains(&byte);
    if !name.bytes().all(plain) {
        return Err(QueryFault::Ambiguous);
    }
    // Some servers read `branch[]`, `branch.x` and `[branch]` as `branch`. Others read `api.key`
    // and `api[key` as `api_key`.
    let first = name.split(['[', ']', '.']).find(|part| !part.is_empty());
    let names_read = [name.as_str(), first.unwrap_or_default()];
    let is = |listed: &str| names_read.iter().any(|name| names::alike(name, listed));
    if names_read.into_iter().any(names::is_for_headers) {
        return Err(QueryFault::Ambiguous);
    }
    if is(PEOPLE) {
        return Err(QueryFault::People);
    }
    if is(CREDENTIALS) && found.actions.is_empty() {
        found.actions.push(READ_CREDENTIALS);
    }
    if BRANCHES.iter().any(|listed| is(listed)) {
        let branch = decode(value.as_bytes());
        let is_valid = pair == whole && text::parse_slug(&branch).is_ok();
        found.branches.insert(branch);
        if !is_valid || found.branches.len() > MAX_BRANCHES {
            return Err(QueryFault::Branch);
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
