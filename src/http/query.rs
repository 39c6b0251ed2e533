//! Refuses queries. Only the list of tokens accepts one, and no query can contain a credential.

use super::error::Refusal;

/// Refuses a query, because proxies may log its parameters.
pub(super) const fn require_none(query: Option<&String>) -> Result<(), Refusal> {
    match query {
        None => Ok(()),
        Some(_) => Err(Refusal::Query),
    }
}
