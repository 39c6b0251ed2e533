//! Opens SQLite. Only one process uses a file, with one connection for writing and several for
//! reading.

use std::{path::Path, sync::Arc, time::Duration};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DbErr,
    sqlx::{
        self, Executor as _,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};

use super::{Connections, Embedded, HeldFile, Location, OpenError};

/// How long a statement waits for another process, such as a backup tool, to release its lock.
const BUSY_FOR: Duration = Duration::from_secs(5);
/// How long a call waits for a connection before the store counts as unreachable.
pub(in crate::store) const ACQUIRE_FOR: Duration = Duration::from_secs(3);
const READERS: u32 = 8;

pub(super) async fn open(location: &Location, path: &Path) -> Result<Connections, OpenError> {
    let file = Arc::new(HeldFile::open(location, path)?);
    let database = |source| OpenError::Database {
        location: location.clone(),
        source,
    };
    let connect = async |connections, use_for| {
        let opened = connect(path, &file, (connections, use_for)).await;
        opened.map_err(database)
    };
    // The writer is opened first, because it sets the journal mode to WAL. It has only one
    // connection, so that writers queue fairly here and do not collide in SQLite.
    let writer = connect(1, Use::Write).await?;
    let anchor = connect(1, Use::Read).await?;
    file.note_wal().map_err(|source| OpenError::File {
        location: location.clone(),
        source,
    })?;
    let reader = connect(READERS, Use::Read).await?;
    Ok(Connections {
        control: reader.clone(),
        writer,
        reader,
        readings: READERS,
        embedded: Some(Embedded { file, anchor }),
    })
}

/// Opens one connection that can only read.
pub(super) async fn open_to_inspect(
    location: &Location,
    path: &Path,
) -> Result<Connections, OpenError> {
    let mut options = ConnectOptions::new("sqlite:stacktoken");
    let path = path.to_owned();
    options
        .max_connections(1)
        .acquire_timeout(ACQUIRE_FOR)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            let sqlite = sqlite.filename(&path).create_if_missing(false);
            sqlite.busy_timeout(BUSY_FOR).pragma("query_only", "on")
        });
    let opened = Database::connect(options).await;
    let opened = opened.map_err(|source| OpenError::Database {
        location: location.clone(),
        source,
    })?;
    Ok(Connections {
        writer: opened.clone(),
        reader: opened.clone(),
        control: opened,
        readings: 1,
        embedded: None,
    })
}

/// What a connection is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

async fn connect(
    path: &Path,
    file: &Arc<HeldFile>,
    (connections, use_for): (u32, Use),
) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new("sqlite:stacktoken");
    let (path, file) = (path.to_owned(), file.clone());
    options
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_FOR)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            let sqlite = sqlite
                .filename(&path)
                .create_if_missing(false)
                .busy_timeout(BUSY_FOR)
                .foreign_keys(true);
            if use_for == Use::Read {
                return sqlite.pragma("query_only", "on");
            }
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
        })
        .map_sqlx_sqlite_pool_opts(move |pool| {
            let file = file.clone();
            pool.after_connect(move |connection, _| {
                let file = file.clone();
                Box::pin(async move {
                    // Open the write-ahead log now, because a connection opens it only at its first
                    // read.
                    connection
                        .execute("SELECT 1 FROM sqlite_schema LIMIT 1")
                        .await?;
                    // SQLite opens the file by path, and the path may refer to another file by now.
                    file.check().map_err(|lost| {
                        let message = format!("the {} was deleted or replaced", lost.name());
                        sqlx::Error::Io(std::io::Error::other(message))
                    })
                })
            })
        });
    Database::connect(options).await
}
