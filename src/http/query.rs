//! Queries of paths. Only the list of tokens takes one; no query can hold a credential.

use super::error::Refusal;

/// Refuses a query. Parameters in a query would be logged by proxies.
pub(super) const fn require_none(query: Option<&String>) -> Result<(), Refusal> {
    match query {
        None => Ok(()),
        Some(_) => Err(Refusal::Query),
    }
}
