//! Opens the store on SQLite or PostgreSQL.

mod connections;
mod held_file;
mod postgres;
pub(in crate::store) mod sqlite;

use std::{io, sync::Arc};

use sea_orm::{DatabaseConnection, DbErr};

use crate::store::engine::database_url::Location;

pub(in crate::store) use self::{
    held_file::HeldFile,
    postgres::{migrating, renew},
};

/// The size of the connection pools, as set by the operator.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// The number of PostgreSQL connections with which this replica serves calls. They are divided
    /// between changes and reads, and each gets at least one.
    pub connections: u32,
}

impl PoolSize {
    /// Returns how many connections are for changes and how many are for reads. Changes get half of
    /// them, rounded down, and reads get the rest, but each gets at least one.
    fn split(self) -> (u32, u32) {
        let changes = (self.connections / 2).max(1);
        (changes, self.connections.saturating_sub(changes).max(1))
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("{0} is in use by another stacktoken process: stop that one first")]
    InUse(Location),
    /// The file or its folder cannot be used.
    #[error("{location} cannot be opened")]
    File {
        /// The location of the store.
        location: Location,
        /// Why the file cannot be used.
        source: io::Error,
    },
    /// The location cannot be opened as a database.
    #[error("{location} cannot be opened as a database")]
    Database {
        /// The location of the store.
        location: Location,
        /// Why the database cannot be opened.
        source: DbErr,
    },
    /// The PostgreSQL version is too old.
    #[error("{location} is PostgreSQL {found}: 13 or newer is needed")]
    TooOld {
        /// The location of the store.
        location: Location,
        /// The version that the server reports.
        found: String,
    },
}

/// The connection pools of a store.
pub(in crate::store) struct Connections {
    /// The pool for changes.
    pub writer: DatabaseConnection,
    /// The pool for reads.
    pub reader: DatabaseConnection,
    /// The pool for the change log and the heartbeat. It is separate, so that load from calls does
    /// not delay them.
    pub control: DatabaseConnection,
    /// The number of connections for reads.
    pub readings: u32,
    /// The file of an embedded store; `None` on PostgreSQL.
    pub embedded: Option<Embedded>,
}

/// The file of an embedded store. It is held for as long as any connection is open.
pub(in crate::store) struct Embedded {
    /// The locked file. The lock keeps other processes out, and the file is checked for deletion
    /// and replacement.
    pub file: Arc<HeldFile>,
    /// A connection that is never used. While it is open, SQLite does not delete the write-ahead
    /// log, even if all other connections are closed.
    pub anchor: DatabaseConnection,
}

/// Opens the store at this location.
pub(in crate::store) async fn open(
    location: &Location,
    size: PoolSize,
) -> Result<Connections, OpenError> {
    match location {
        Location::Sqlite(path) => sqlite::open(location, path).await,
        Location::Postgres(urls) => postgres::open(location, urls, size).await,
    }
}

/// Opens the store at this location only to inspect it. An SQLite file is neither locked, nor
/// changed, nor created, so another process may serve from it meanwhile.
pub(in crate::store) async fn open_to_inspect(
    location: &Location,
    size: PoolSize,
) -> Result<Connections, OpenError> {
    match location {
        Location::Sqlite(path) => sqlite::open_to_inspect(location, path).await,
        Location::Postgres(urls) => postgres::open(location, urls, size).await,
    }
}

#[cfg(test)]
mod tests {
    use super::PoolSize;

    #[test]
    fn connections_are_divided_without_rest_and_leave_one_for_each() {
        let split = |connections| PoolSize { connections }.split();
        assert_eq!(split(1), (1, 1));
        assert_eq!(split(2), (1, 1));
        assert_eq!(split(5), (2, 3));
        assert_eq!(split(16), (8, 8));
    }
}
