//! Opens PostgreSQL. There is one pool for changes, one for reads, and a small one for the change
//! log and the heartbeat, so that none of them waits for connections that another one uses.

use std::time::Duration;

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbErr, Statement,
};

use super::{Connections, Location, OpenError, PoolSize};
use crate::store::engine::database_url::PostgresUrls;

/// A connection that was idle for longer than this is pinged before it is used.
const PING_AFTER: Duration = Duration::from_secs(10);
/// An idle connection is closed after this time.
const IDLE_FOR: Duration = Duration::from_mins(5);
/// One connection is for the change log, one is for the heartbeat, and one is spare.
const CONTROL: u32 = 3;
/// The oldest supported version, PostgreSQL 13. It is the first with `pg_current_xact_id`.
const OLDEST: i32 = 130_000;

pub(super) async fn open(
    location: &Location,
    urls: &PostgresUrls,
    size: PoolSize,
) -> Result<Connections, OpenError> {
    let database = |source| OpenError::Database {
        location: location.clone(),
        source,
    };
    let (writer, reader, control) = renew(urls, size).await.map_err(database)?;
    let (number, version) = version(&control).await.map_err(database)?;
    if number < OLDEST {
        return Err(OpenError::TooOld {
            location: location.clone(),
            found: version,
        });
    }
    Ok(Connections {
        writer,
        reader,
        control,
        readings: size.split().1,
        embedded: None,
    })
}

/// Opens new pools to replace pools whose connections may be dead. A connection whose packets are
/// dropped looks like a slow connection, so a pool would hand it out again and again.
pub(in crate::store) async fn renew(
    urls: &PostgresUrls,
    size: PoolSize,
) -> Result<(DatabaseConnection, DatabaseConnection, DatabaseConnection), DbErr> {
    let (changes, readings) = size.split();
    Ok((
        pool(urls, &urls.url(), changes).await?,
        pool(urls, &urls.url(), readings).await?,
        pool(urls, &urls.direct(), CONTROL).await?,
    ))
}

/// Opens a single connection for migrations. It bypasses any pooler, because the lock that
/// migrations take belongs to the session.
pub(in crate::store) async fn migrating(urls: &PostgresUrls) -> Result<DatabaseConnection, DbErr> {
    pool(urls, &urls.direct(), 1).await
}

async fn pool(
    urls: &PostgresUrls,
    url: &str,
    connections: u32,
) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(urls.acquire_for())
        .idle_timeout(Some(IDLE_FOR))
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(PING_AFTER)
        .connect_lazy(true)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .set_application_name("stacktoken");
    Database::connect(options).await
}

async fn version(connection: &DatabaseConnection) -> Result<(i32, String), DbErr> {
    let sql = "SELECT current_setting('server_version_num')::int4 AS number, \
               current_setting('server_version') AS version";
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await?;
    let row = row.ok_or(DbErr::RecordNotFound("server_version".to_owned()))?;
    Ok((row.try_get("", "number")?, row.try_get("", "version")?))
}
