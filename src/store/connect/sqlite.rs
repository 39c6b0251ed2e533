//! SQLite: one process per file, one writer, many readers.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, DbErr,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use super::{Connections, Location, OpenError};

/// How long a statement waits for another process, such as a backup tool, to let go.
const BUSY_FOR: Duration = Duration::from_secs(5);
/// How long a call waits for a connection before the store counts as unreachable.
const ACQUIRE_FOR: Duration = Duration::from_secs(3);
const READERS: u32 = 4;

pub(super) async fn open(location: &Location, path: &Path) -> Result<Connections, OpenError> {
    let lock = lock(location, path)?;
    let database = |source| OpenError::Database {
        location: location.clone(),
        source,
    };
    // The writer first: it makes the file and turns the journal to WAL. A single connection,
    // so that writers queue fairly here rather than collide in SQLite.
    let writer = connect(path, 1, false).await.map_err(database)?;
    let reader = connect(path, READERS, true).await.map_err(database)?;
    Ok(Connections {
        control: reader.clone(),
        writer,
        reader,
        lock: Some(lock),
    })
}

fn lock(location: &Location, path: &Path) -> Result<File, OpenError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = |source| OpenError::File {
        location: location.clone(),
        source,
    };
    let lock = File::create(PathBuf::from(beside)).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(location.clone())),
        Err(TryLockError::Error(source)) => Err(file(source)),
    }
}

async fn connect(
    path: &Path,
    connections: u32,
    only_reads: bool,
) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new("sqlite:stacktoken");
    let path = path.to_owned();
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
                .create_if_missing(!only_reads)
                .busy_timeout(BUSY_FOR)
                .foreign_keys(true);
            if only_reads {
                return sqlite.pragma("query_only", "on");
            }
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
        });
    Database::connect(options).await
}
