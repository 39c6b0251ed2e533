//! What a use case can fail with, named by condition. Not being able to decide is always one
//! of these and never a verdict (R13).

use crate::{
    domain::{entropy::EntropyFailed, refusal::Refusal},
    store,
};

/// Why a use case did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot be reached, or another transaction was in the way for too long.
    #[error("the store is unavailable")]
    StoreUnavailable(#[source] store::Error),
    /// The store has no space left.
    #[error("the store is full")]
    StorageFull(#[source] store::Error),
    /// The audit row was not taken, so nothing was done (R14).
    #[error("the audit is unavailable")]
    AuditUnavailable(#[source] store::Error),
    /// A bug, or a row that does not parse.
    #[error("internal")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Refused(refusal) => Self::Refused(refusal),
            store::Error::Unavailable(_) | store::Error::Conflict(_) => {
                Self::StoreUnavailable(error)
            }
            store::Error::Full(_) => Self::StorageFull(error),
            store::Error::AuditUnavailable(_) => Self::AuditUnavailable(error),
            store::Error::Corrupt { .. } | store::Error::Database(_) | store::Error::Entropy(_) => {
                Self::Internal(Box::new(error))
            }
        }
    }
}

impl From<EntropyFailed> for Error {
    fn from(error: EntropyFailed) -> Self {
        Self::Internal(Box::new(error))
    }
}
