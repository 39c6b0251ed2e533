//! The audit log. A change writes its audit row in its own transaction. Refusals are recorded
//! afterwards (R14).

pub(in crate::store) mod append;
pub(in crate::store) mod list;
pub(in crate::store) mod refusals;
mod snapshot;

use sea_orm::DbErr;

use crate::store::Error;

/// Converts the result of a statement that writes to the audit log.
fn written<T>(inserted: Result<T, DbErr>) -> Result<(), Error> {
    match inserted {
        Ok(_) => Ok(()),
        // If the store is unreachable or full, that error is returned as it is. A failed write
        // counts as an audit failure only if the database rejects the statement itself.
        Err(error) => Err(match Error::from(error) {
            Error::Database(source) => Error::AuditUnavailable(source),
            other => other,
        }),
    }
}
