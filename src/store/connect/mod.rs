//! Opening the store, on either engine.

mod held_file;
mod postgres;
mod sqlite;

use std::{io, sync::Arc};

use sea_orm::{DatabaseConnection, DbErr};

use super::location::Location;

pub(super) use self::{
    held_file::HeldFile,
    postgres::{migrating, renew},
};

/// What an operator can set about the connections.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    /// How many connections to PostgreSQL this replica may have for its calls, those for changes
    /// and those for readings together; two where fewer are given.
    pub connections: u32,
}

impl PoolSize {
    /// How many are for changes, and how many for readings: half, rounded down, and the others,
    /// at least one of each.
    fn split(self) -> (u32, u32) {
        let changes = (self.connections / 2).max(1);
        (changes, self.connections.saturating_sub(changes).max(1))
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another stacktoken process: stop that one first")]
    InUse(Location),
    /// The file or its folder cannot be used.
    #[error("{location} cannot be opened: {source}")]
    File {
        /// Which.
        location: Location,
        /// Why.
        source: io::Error,
    },
    /// The database does not open.
    #[error("{location} cannot be opened as a database: {source}")]
    Database {
        /// Which.
        location: Location,
        /// Why.
        source: DbErr,
    },
    /// It opens, but is too old.
    #[error("{location} is PostgreSQL {found}: 13 or newer is needed")]
    TooOld {
        /// Which.
        location: Location,
        /// What it says of itself.
        found: String,
    },
}

/// The ways into a store.
pub(super) struct Connections {
    /// For changes.
    pub writer: DatabaseConnection,
    /// For reads.
    pub reader: DatabaseConnection,
    /// For the feed of changes and the heartbeat, so that no load of calls keeps them waiting.
    pub control: DatabaseConnection,
    /// How many connections there are for reads.
    pub readings: u32,
    /// What only SQLite has.
    pub embedded: Option<Embedded>,
}

/// The file of an embedded store, held for as long as any connection is open.
pub(super) struct Embedded {
    /// Keeps other processes out, and knows whether the file is still in its place.
    pub file: Arc<HeldFile>,
    /// A connection that is never used: while it is open, SQLite does not delete the
    /// write-ahead log, whichever other connections come and go.
    pub anchor: DatabaseConnection,
}

/// Opens the store at this place.
pub(super) async fn open(location: &Location, size: PoolSize) -> Result<Connections, OpenError> {
    match location {
        Location::Sqlite(path) => sqlite::open(location, path).await,
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
