//! What a use case can fail with, named by condition. Not being able to decide is always one
//! of these and never a verdict (R13).

use std::sync::Arc;

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
    /// A change may have been made or not.
    #[error("the outcome of the change is unknown")]
    OutcomeUnknown(#[source] store::Error),
    /// What could be answered is older than the freshness bound, or nobody can tell (R12).
    #[error("nothing fresh enough is to be had")]
    NotFresh,
    /// A revision of another history, or one that the store has not reached.
    #[error("the revision is unknown")]
    RevisionUnknown,
    /// A point to watch from, or what was watched, is of another history, or not reached yet.
    #[error("the revision to watch from is unknown")]
    WatchUnknown,
    /// The changes since a point to watch from are not kept, or too many.
    #[error("the changes to tell of are not to be had")]
    RevisionPurged,
    /// Changes came faster than one who watches took them.
    #[error("watching fell behind")]
    WatchLagged,
    /// More readings of the store than this replica starts at once.
    #[error("overloaded")]
    Overloaded,
    /// The store has no space left.
    #[error("the store is full")]
    StorageFull(#[source] store::Error),
    /// The audit row was not taken, so nothing was done (R14).
    #[error("the audit is unavailable")]
    AuditUnavailable(#[source] store::Error),
    /// A clock is wrong by more than the permitted skew, so nothing can be decided (R8).
    #[error("the clock is wrong")]
    ClockSkew,
    /// A bug, or a row that does not parse.
    #[error("internal")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Refused(refusal) => Self::Refused(refusal),
            store::Error::Unavailable(_)
            | store::Error::Conflict(_)
            | store::Error::NotPrimary
            | store::Error::ReadOnly
            | store::Error::Nameless
            | store::Error::Foreign
            | store::Error::Untrusted
            | store::Error::FileLost(_) => Self::StoreUnavailable(error),
            store::Error::OutcomeUnknown(_) => Self::OutcomeUnknown(error),
            store::Error::Crowded => Self::Overloaded,
            store::Error::ClockSkew { behind } => {
                tracing::error!(?behind, "the clock is behind the last change of a stack");
                Self::ClockSkew
            }
            store::Error::ClocksDiffer { by } => {
                tracing::error!(
                    ?by,
                    "a change was refused: the database's clock differs from ours"
                );
                Self::ClockSkew
            }
            store::Error::Full(_) => Self::StorageFull(error),
            store::Error::Shared(shared) => Self::of_reading(&shared),
            store::Error::AuditUnavailable(_) => Self::AuditUnavailable(error),
            store::Error::Corrupt { .. } | store::Error::Database(_) | store::Error::Entropy(_) => {
                Self::Internal(Box::new(error))
            }
        }
    }
}

impl Error {
    /// What a reading that several share failed with: the same for all, so the cause stays in
    /// the log of whoever reads.
    pub(super) fn of_reading(error: &Arc<store::Error>) -> Self {
        match error.as_ref() {
            store::Error::Corrupt { .. } | store::Error::Database(_) => {
                Self::Internal(Box::new(error.clone()))
            }
            store::Error::Crowded => Self::Overloaded,
            store::Error::ClockSkew { .. } | store::Error::ClocksDiffer { .. } => Self::ClockSkew,
            store::Error::NotPrimary | store::Error::Nameless | store::Error::Foreign => {
                Self::NotFresh
            }
            _ => Self::StoreUnavailable(store::Error::Shared(error.clone())),
        }
    }
}

impl From<EntropyFailed> for Error {
    fn from(error: EntropyFailed) -> Self {
        Self::Internal(Box::new(error))
    }
}
