//! Errors of the use cases. If a verdict cannot be decided, the result is an error, never a verdict
//! (R13).

use std::sync::Arc;

use crate::{
    domain::{entropy::EntropyFailed, refusal::Refusal},
    store,
};

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule refuses the call.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store is unreachable, or another transaction held a lock for too long.
    #[error("the store is unavailable")]
    StoreUnavailable(#[source] store::Error),
    /// It is unknown whether the change was made.
    #[error("the outcome of the change is unknown")]
    OutcomeUnknown(#[source] store::Error),
    /// No answer within the freshness bound is available, or it is not known how fresh an answer
    /// would be (R12).
    #[error("no answer within the freshness bound is available")]
    NotFresh,
    /// The requested revision belongs to another change log, or this replica has not reached it.
    #[error("the revision is unknown")]
    RevisionUnknown,
    /// The revision to watch from belongs to another change log or has not been reached yet, or the
    /// running watch follows a change log that has been replaced.
    #[error("the revision to watch from is unknown")]
    WatchUnknown,
    /// The changes since the revision to watch from have been purged, or are too many to send.
    #[error("the changes to send are no longer kept")]
    RevisionPurged,
    /// The client read its Watch stream more slowly than changes were made, so the stream ended.
    #[error("watching fell behind")]
    WatchLagged,
    /// The keys of a workload's issuer are not available.
    #[error("the issuer's keys are unavailable")]
    KeysUnavailable,
    /// The limit on concurrent store lookups is reached.
    #[error("overloaded")]
    Overloaded,
    /// The store has no space left.
    #[error("the store is full")]
    StorageFull(#[source] store::Error),
    /// The audit row could not be written, so the change was not made (R14).
    #[error("the audit is unavailable")]
    AuditUnavailable(#[source] store::Error),
    /// The clock of this process or of the database is wrong by more than the permitted skew, so
    /// neither a verdict nor a change can be decided (R8).
    #[error("the clock is wrong")]
    ClockSkew,
    /// The database was restored from a backup, or has lost its last changes, and what had ended was
    /// not ended again yet.
    #[error("the database is older than the restore guard has recorded")]
    RestoredFromPast,
    /// The restore guard does not accept the change, so it was not made.
    #[error("the restore guard is unavailable")]
    GuardUnavailable,
    /// There is a bug, or a row in the store does not parse.
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
            store::Error::RestoredFromPast => Self::RestoredFromPast,
            store::Error::GuardUnavailable => Self::GuardUnavailable,
            store::Error::OtherGuard
            | store::Error::Corrupt { .. }
            | store::Error::Database(_)
            | store::Error::Entropy(_) => Self::Internal(Box::new(error)),
        }
    }
}

impl Error {
    /// Converts the error of a lookup. Several callers can share one lookup, and then get the same
    /// error.
    pub(super) fn of_reading(error: &Arc<store::Error>) -> Self {
        match error.as_ref() {
            store::Error::Corrupt { .. } | store::Error::Database(_) => {
                Self::Internal(Box::new(error.clone()))
            }
            store::Error::Crowded => Self::Overloaded,
            store::Error::ClockSkew { .. } | store::Error::ClocksDiffer { .. } => Self::ClockSkew,
            store::Error::RestoredFromPast => Self::RestoredFromPast,
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
