//! The audit log. A change writes its audit row in its own transaction. Refusals are recorded
//! afterwards (R14).

pub(in crate::store) mod append;
pub(in crate::store) mod list;
pub(in crate::store) mod refusals;
mod snapshot;

use sea_orm::DbErr;

use crate::store::Error;

/// Converts the error of a statement that writes to the audit log and to other tables. It becomes
/// an audit failure if the database's message names the audit table.
pub(in crate::store) fn of_audit(error: Error) -> Error {
    match error {
        Error::Database(source) if source.to_string().contains("audit_events") => {
            Error::AuditUnavailable(source)
        }
        error => error,
    }
}

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
