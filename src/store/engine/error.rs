//! The errors of the store, one for each condition. No other module reads the driver's error codes.

use std::time::Duration;

use sea_orm::{DbErr, RuntimeErr, sqlx};

use crate::domain::{entropy::EntropyFailed, refusal::Refusal};

/// Why a store method failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule refused the call. The transaction was still committed, but it only recorded that
    /// expired tokens have ended (R8).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store cannot be reached, or does not answer.
    #[error("the store cannot be reached")]
    Unavailable(#[source] DbErr),
    /// The store has no space left.
    #[error("the store has no space left")]
    Full(#[source] DbErr),
    /// The audit row could not be written. Nothing was changed (R14).
    #[error("the audit row could not be written")]
    AuditUnavailable(#[source] DbErr),
    /// Another transaction conflicted with this one, even after retries.
    #[error("another transaction held the lock")]
    Conflict(#[source] DbErr),
    /// A row cannot be parsed.
    #[error("{table} {id} has a {column} that does not parse")]
    Corrupt {
        /// The table that contains the row.
        table: &'static str,
        /// The column that cannot be parsed.
        column: &'static str,
        /// The id of the row.
        id: String,
    },
    /// The database answers but is not the primary. It is a standby, or a primary that was demoted,
    /// and its data may be old.
    #[error("the database is not the primary")]
    NotPrimary,
    /// The database answers but accepts no changes. It is a standby, or was set to read-only.
    #[error("the database is read-only")]
    ReadOnly,
    /// The file or the write-ahead log of the embedded database was deleted or replaced. Changes
    /// committed now would be lost when the process ends.
    #[error("the {0} was deleted or replaced")]
    FileLost(&'static str),
    /// A COMMIT was sent, but it is not known whether the transaction was committed.
    #[error("the outcome of the change is unknown")]
    OutcomeUnknown(#[source] DbErr),
    /// Too many changes of one stack, or too many reads of one caller, are waiting.
    #[error("too many changes of this stack are queued")]
    Crowded,
    /// The clock is behind the last change of the stack by more than the permitted skew. A decision
    /// now could undo something that is final (R8).
    #[error("the clock is {behind:?} behind the last change of the stack")]
    ClockSkew {
        /// By how much the clock is behind.
        behind: Duration,
    },
    /// The clocks of the database and of this process differ by more than the permitted skew (R8).
    #[error("the clocks of the database and of this process differ by {by:?}")]
    ClocksDiffer {
        /// By how much the clocks differ.
        by: Duration,
    },
    /// The database is not the one that committed the last heartbeat, so nothing was changed. A
    /// change in it would be lost as soon as the address leads back to the former database.
    #[error("this is not the database that committed the last heartbeat")]
    Untrusted,
    /// The database has no incarnation number, because it was promoted or was started after a
    /// crash. Without the number, data read before that event cannot be distinguished from data
    /// read after it.
    #[error("the database has no incarnation yet")]
    Nameless,
    /// The rows were written by another database cluster or into other tables, because the database
    /// was restored, moved or upgraded.
    #[error(
        "the rows were written by another database or schema: check the URL and the role's \
         search_path; if this database is meant to replace the other, run `stacktoken migrate \
         new-epoch`"
    )]
    Foreign,
    /// The database is behind the mark of its guard: it was restored from a backup, or has lost its
    /// last changes in a failover. What was revoked meanwhile would work again.
    #[error(
        "the database is older than the restore guard has recorded: run `stacktoken restore plan` \
         to see what would come back, and `stacktoken restore apply` to end it again"
    )]
    RestoredFromPast,
    /// The guard does not accept lines, or cannot be read. Nothing was changed.
    #[error("the restore guard cannot be used")]
    GuardUnavailable,
    /// The place has the guard of another database. Nothing was changed.
    #[error(
        "this is the guard of another database: set the right place, or begin a new guard in an \
         empty directory with `stacktoken restore new-guard`"
    )]
    OtherGuard,
    /// Any other error of the database.
    #[error("the database refused a statement")]
    Database(#[source] DbErr),
    /// An error that several callers of a single-flight load receive.
    #[error(transparent)]
    Shared(std::sync::Arc<Self>),
    /// No random bytes were available to generate an id.
    #[error(transparent)]
    Entropy(#[from] EntropyFailed),
}

impl Error {
    /// Returns the name of the condition. Returns `None` for a refusal, which is not a failure of
    /// the store.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Refused(_) => None,
            Self::Unavailable(_) => Some("UNAVAILABLE"),
            Self::Full(_) => Some("FULL"),
            Self::AuditUnavailable(_) => Some("AUDIT_UNAVAILABLE"),
            Self::Conflict(_) => Some("CONFLICT"),
            Self::Corrupt { .. } => Some("CORRUPT"),
            Self::NotPrimary => Some("NOT_PRIMARY"),
            Self::ReadOnly => Some("READ_ONLY"),
            Self::OutcomeUnknown(_) => Some("OUTCOME_UNKNOWN"),
            Self::Crowded => Some("CROWDED"),
            Self::Nameless => Some("NAMELESS"),
            Self::Foreign => Some("FOREIGN"),
            Self::FileLost(_) => Some("FILE_LOST"),
            Self::ClockSkew { .. } | Self::ClocksDiffer { .. } => Some("CLOCK_SKEW"),
            Self::Untrusted => Some("UNTRUSTED"),
            Self::RestoredFromPast => Some("RESTORED_FROM_PAST"),
            Self::GuardUnavailable => Some("GUARD_UNAVAILABLE"),
            Self::OtherGuard => Some("OTHER_GUARD"),
            Self::Database(_) => Some("DATABASE"),
            Self::Shared(error) => error.kind(),
            Self::Entropy(_) => Some("ENTROPY"),
        }
    }

    /// Returns whether the call failed because all connections were in use.
    #[must_use]
    pub const fn is_out_of_connections(&self) -> bool {
        matches!(self, Self::Unavailable(DbErr::ConnectionAcquire(_)))
    }

    /// Returns whether a connection turned out to be dead. The pool's other connections are then
    /// probably dead too. Returns `false` if no connection was free, or if the database rejected a
    /// statement on a working connection.
    #[must_use]
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Unavailable(DbErr::ConnectionAcquire(_)) => false,
            Self::Unavailable(source) => !is_answer(source),
            _ => false,
        }
    }

    /// Returns whether the database accepts no changes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Shared(error) => error.is_read_only(),
            _ => false,
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match condition(&error) {
            Condition::Unavailable => Self::Unavailable(error),
            Condition::Full => Self::Full(error),
            Condition::Conflict => Self::Conflict(error),
            Condition::NotPrimary => Self::NotPrimary,
            Condition::ReadOnly => Self::ReadOnly,
            Condition::Other => Self::Database(error),
        }
    }
}

enum Condition {
    Unavailable,
    Full,
    Conflict,
    NotPrimary,
    ReadOnly,
    Other,
}

fn condition(error: &DbErr) -> Condition {
    let runtime = match error {
        DbErr::ConnectionAcquire(_) => return Condition::Unavailable,
        // Every error before there is a connection means that the store is unavailable. The
        // exception is a full disk, on which SQLite cannot open a file.
        DbErr::Conn(runtime) => {
            return match condition_of(runtime) {
                Condition::Full => Condition::Full,
                _ => Condition::Unavailable,
            };
        }
        DbErr::Exec(runtime) | DbErr::Query(runtime) => runtime,
        _ => return Condition::Other,
    };
    condition_of(runtime)
}

fn condition_of(runtime: &RuntimeErr) -> Condition {
    let RuntimeErr::SqlxError(driver) = runtime else {
        return Condition::Other;
    };
    match driver.as_ref() {
        sqlx::Error::Database(database) if is_standby(database.as_ref()) => Condition::NotPrimary,
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // An SQLSTATE has five characters. SQLite's codes are shorter.
            Some(code) if code.len() == 5 => postgres_condition(code),
            code => sqlite_condition(code),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // The response could not be parsed, because the connection was cut in the middle of a
        // message.
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Condition::Unavailable,
        _ => Condition::Other,
    }
}

/// Returns whether the error is a response of the server on a connection that stays open.
/// Connection exceptions, shutdowns and terminated sessions end the connection.
fn is_answer(error: &DbErr) -> bool {
    let ends = ["08", "57P", "25P03", "25P04"];
    code_of(error).is_some_and(|code| !ends.iter().any(|end| code.starts_with(end)))
}

/// Returns the code in the error response of the database. On PostgreSQL this is the SQLSTATE.
pub(in crate::store) fn code_of(error: &DbErr) -> Option<String> {
    let (DbErr::Conn(runtime) | DbErr::Exec(runtime) | DbErr::Query(runtime)) = error else {
        return None;
    };
    let RuntimeErr::SqlxError(driver) = runtime else {
        return None;
    };
    Some(driver.as_database_error()?.code()?.into_owned())
}

/// Returns whether the error is a standby's refusal to read the unlogged `incarnation` table. The
/// code alone only says that a feature is not supported, so the name of the routine is checked as
/// well.
fn is_standby(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    error.is_some_and(|error| {
        error.code() == "0A000" && error.routine() == Some("get_relation_info")
    })
}

/// Maps an SQLite result code to a condition. Extended codes use the higher bytes, which are
/// ignored.
fn sqlite_condition(code: Option<&str>) -> Condition {
    const PERM: u32 = 3;
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const NOMEM: u32 = 7;
    const READONLY: u32 = 8;
    const IOERR: u32 = 10;
    const CORRUPT: u32 = 11;
    const FULL: u32 = 13;
    const CANTOPEN: u32 = 14;
    const PROTOCOL: u32 = 15;
    const NOTADB: u32 = 26;
    let code = code.and_then(|code| code.parse::<u32>().ok());
    match code.map(|code| code & 0xff) {
        Some(BUSY | LOCKED) => Condition::Conflict,
        Some(FULL) => Condition::Full,
        // The fault is in the file, not in the statement. The store is unavailable until the file
        // is repaired (R13).
        Some(READONLY) => Condition::ReadOnly,
        Some(PERM | NOMEM | IOERR | CORRUPT | CANTOPEN | PROTOCOL | NOTADB) => {
            Condition::Unavailable
        }
        _ => Condition::Other,
    }
}

/// Maps an SQLSTATE to a condition, by its code or its class.
fn postgres_condition(code: &str) -> Condition {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Condition::Conflict,
        // Disk full.
        "53100" => Condition::Full,
        // Read-only transaction, on a standby or in a session that may not write.
        "25006" => Condition::ReadOnly,
        // Query cancelled, or session terminated by a time-out of the server.
        "57014" | "25P03" | "25P04" => Condition::Unavailable,
        // Connection exceptions, insufficient resources, operator intervention.
        _ if ["08", "53", "57"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            Condition::Unavailable
        }
        _ => Condition::Other,
    }
}
