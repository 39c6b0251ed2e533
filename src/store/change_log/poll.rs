//! Reads the change log. A replica uses it to learn of changes made by other replicas, and a
//! watcher to learn of all changes.

use std::time::Duration;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    DatabaseConnection, DbErr, FromQueryResult as _, QueryResult,
    sqlx::{Executor as _, postgres::PgListener},
};
use uuid::Uuid;

use crate::domain::{
    id::{StackUid, TokenUid},
    origin::Origin,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Location, Store,
    change_log::append::{CHANNEL, Kind},
    engine::database_url::PostgresUrls,
    engine::evidence::first,
    engine::origin::full_origin_of,
};

/// The maximum number of changes that one read returns. If there are more, the read returns
/// [`Lost::TooMany`].
const MAX_CHANGES: usize = 10_000;

/// The position up to which the change log was read, and the database that was read. A cursor is
/// meaningless in another database, because after a crash or a promotion, PostgreSQL can reuse
/// transaction ids that had not reached the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The position at which the next read starts. On PostgreSQL it is a transaction id. A row may
    /// become visible after a row with a higher transaction id, but never a row whose transaction
    /// id is below the oldest transaction still running. On SQLite it is a row id, because there is
    /// only one writer.
    next: i64,
    origin: Origin,
}

impl Cursor {
    /// Returns the last position up to which every change was read.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.next - 1
    }

    /// Returns the epoch of the change log.
    #[must_use]
    pub const fn epoch(&self) -> i64 {
        self.origin.epoch
    }

    /// Returns the database that was read.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns a cursor in the same change log for a reader that has read everything up to this
    /// position.
    fn after(&self, position: i64) -> Self {
        Self {
            next: position.saturating_add(1),
            ..self.clone()
        }
    }
}

/// A row of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row id, by which a reader recognizes a change that it has already read.
    pub id: i64,
    /// The position of the change in the change log.
    pub position: i64,
    /// The stack that was changed.
    pub stack: StackUid,
    /// The token that was changed. `None` if the change is about the stack as a whole.
    pub token: Option<TokenUid>,
    /// Whether cached facts stay correct after this change.
    pub harmless: bool,
    /// The instant of the change, according to the clock with which the change was decided (R8).
    pub changed_at: Timestamp,
}

/// Why the changes since the cursor cannot be listed. The reader must then treat everything that it
/// knows as outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There is no cursor, or its origin differs from that of the database that answered. The
    /// origin changes with a crash, a promotion or a restore, or when the address leads to another
    /// database.
    Elsewhere,
    /// There are too many changes since the cursor, or some of them were purged.
    TooMany,
}

/// The result of reading the change log.
#[derive(Debug)]
pub struct History {
    /// The changes since the cursor, ordered by position.
    pub changes: Result<Vec<Change>, Lost>,
    /// The cursor for the next read.
    pub next: Cursor,
    /// The highest position of a change below the cursor for the next read. A watcher can resume
    /// from it after any failover, because an acknowledged change keeps its position. The id of a
    /// transaction that wrote no change might be assigned again.
    pub resume: i64,
    /// The highest visible position of any change.
    pub newest: i64,
}

/// Returns the statement for PostgreSQL, which selects the next cursor and the rows that may not
/// have been visible to the previous read. A single statement sees a single snapshot, so no row is
/// missed. Every `ORDER BY` names its table, because a bare `xid` would mean the output column.
/// That column is not indexed, so PostgreSQL would sort the whole table. The limit is inside the
/// subquery, so that the index is the cheapest plan for every row count that the planner may
/// estimate.
pub(in crate::store) fn on_postgres(origin: &str) -> String {
    format!(
        "\
    SELECT {origin}, c.id, c.xid::text::bigint AS position, \
           c.stack_uid, c.token_uid, c.kind, c.changed_at, \
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS next, \
           (SELECT value FROM meta WHERE name = 'purged') AS purged, \
           (SELECT changes.xid::text::bigint FROM changes \
            WHERE changes.xid < pg_snapshot_xmin(pg_current_snapshot()) \
            ORDER BY changes.xid DESC LIMIT 1) AS resume, \
           (SELECT changes.xid::text::bigint FROM changes \
            ORDER BY changes.xid DESC LIMIT 1) AS newest \
    FROM (SELECT 1 AS one) AS asked \
    LEFT JOIN LATERAL \
         (SELECT * FROM changes WHERE changes.xid >= $1::text::xid8 \
          ORDER BY changes.xid, changes.id LIMIT $2) AS c ON TRUE \
    ORDER BY c.xid, c.id"
    )
}
/// Returns the statement for SQLite. There is only one writer, so no earlier row can become visible
/// later.
pub(in crate::store) fn on_sqlite(origin: &str) -> String {
    format!(
        "\
    SELECT {origin}, c.id, c.id AS position, c.stack_uid, c.token_uid, c.kind, c.changed_at, \
           (SELECT COALESCE(MAX(id), 0) + 1 FROM changes) AS next, \
           (SELECT value FROM meta WHERE name = 'purged') AS purged, \
           (SELECT MAX(id) FROM changes) AS resume, \
           (SELECT MAX(id) FROM changes) AS newest \
    FROM (SELECT 1 AS one) AS asked \
    LEFT JOIN changes c ON c.id >= CAST($1 AS INTEGER) \
    ORDER BY c.id LIMIT $2"
    )
}

#[derive(sea_orm::FromQueryResult)]
struct Row {
    id: i64,
    position: i64,
    stack_uid: Uuid,
    token_uid: Option<Uuid>,
    kind: String,
    changed_at: i64,
}

impl Store {
    /// Reads the changes since a cursor, from the primary only. The poller of the change log uses
    /// it.
    ///
    /// # Errors
    /// Returns [`Error::NotPrimary`] if the database is not the primary, or another [`Error`] if it
    /// cannot be read.
    pub async fn read_history(&self, since: Option<&Cursor>) -> Result<History, Error> {
        let control = self.pools.load().control.clone();
        self.read_since(&control, since).await
    }

    /// Reads the changes after a position for a watcher, from the primary only. `feed` is the
    /// poller's cursor of the same change log. Without a position, returns only where the change
    /// log ends.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::read_history`].
    pub async fn read_backlog(&self, from: Option<i64>, feed: &Cursor) -> Result<History, Error> {
        let since = feed.after(from.unwrap_or(i64::MAX));
        let operation = self.begin_operation("read_backlog");
        let reader = self.pools.load().reader.clone();
        let mut read = self.read_since(&reader, Some(&since)).await;
        if self.renew_after_lost_connection(&read).await {
            let reader = self.pools.load().reader.clone();
            read = self.read_since(&reader, Some(&since)).await;
        }
        operation.end(read.as_ref().err().and_then(Error::kind));
        read
    }

    async fn read_since(
        &self,
        connection: &DatabaseConnection,
        since: Option<&Cursor>,
    ) -> Result<History, Error> {
        self.require_file()?;
        // Without a cursor, no row matches, and the statement returns only the next cursor.
        let from = since.map_or(i64::MAX, |cursor| cursor.next);
        let most = i64::try_from(MAX_CHANGES + 1).unwrap_or(i64::MAX);
        let values = || vec![from.to_string().into(), most.into()];
        let rows = self
            .read_evidence(connection, &self.statements.poll, values)
            .await?;
        let first = first(&rows)?;
        let next = Cursor {
            next: first.try_get("", "next")?,
            origin: full_origin_of(first)?,
        };
        let at = |name| first.try_get::<Option<i64>>("", name);
        let purged = at("purged")?.unwrap_or_default();
        // If a purge has left no row below the next cursor, the position up to which the change log
        // was purged is used.
        let resume = at("resume")?.unwrap_or(purged);
        let newest = at("newest")?.unwrap_or(resume);
        let changes = match since.filter(|since| next.origin.is(&since.origin)) {
            None => Err(Lost::Elsewhere),
            Some(since) if rows.len() > MAX_CHANGES || since.position() < purged => {
                Err(Lost::TooMany)
            }
            Some(_) => Ok(changes(&rows)?),
        };
        Ok(History {
            changes,
            next,
            resume,
            newest,
        })
    }

    /// Returns a LISTEN connection that reports when to poll the change log. Returns `None` on
    /// SQLite, where no other process makes changes.
    #[must_use]
    pub fn listener(&self) -> Option<Listener> {
        match &self.location {
            Location::Sqlite(_) => None,
            Location::Postgres(urls) => Some(Listener {
                urls: urls.clone(),
                connection: None,
            }),
        }
    }
}

/// Parses the changes. If there are no changes, the only row has no id.
fn changes(rows: &[QueryResult]) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        let id: Option<i64> = row.try_get("", "id")?;
        if id.is_some() {
            changes.push(change(&Row::from_query_result(row, "")?)?);
        }
    }
    Ok(changes)
}

fn change(row: &Row) -> Result<Change, Error> {
    let corrupt = || Error::Corrupt {
        table: "changes",
        column: "changed_at",
        id: row.id.to_string(),
    };
    // A kind that only a newer version knows is treated as harmful.
    let harmless = Kind::ALL
        .iter()
        .any(|kind| kind.name() == row.kind && kind.is_harmless());
    Ok(Change {
        id: row.id,
        position: row.position,
        stack: StackUid::from_untyped_uuid(row.stack_uid),
        token: row.token_uid.map(TokenUid::from_untyped_uuid),
        harmless,
        changed_at: Timestamp::from_micros(row.changed_at).ok_or_else(corrupt)?,
    })
}

/// Receives NOTIFY hints. If a hint is lost, replicas learn of the change only a little later,
/// because they also poll the change log.
pub struct Listener {
    urls: PostgresUrls,
    connection: Option<PgListener>,
}

/// The time limit for connecting and for LISTEN.
const CONNECT_FOR: Duration = Duration::from_secs(3);
/// How often an idle connection is checked. Without this check, nothing would notice that the
/// server has vanished.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The time limit of the check.
const ASK_FOR: Duration = Duration::from_secs(1);

impl Listener {
    /// Closes the connection, because it may lead to a database that is no longer trusted.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    /// Waits for the next hint. Also returns when hints may have been missed.
    ///
    /// # Errors
    /// Returns [`DbErr`] if no connection can be made now. Retry later.
    pub async fn hint(&mut self) -> Result<(), DbErr> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(connect(&self.urls.direct()).await?);
            return Ok(());
        };
        let heard = tokio::time::timeout(ASK_EVERY, connection.try_recv()).await;
        let is_alive = match heard {
            // `None` means that the library has reconnected, so hints that were sent in between are
            // lost.
            Ok(Ok(_)) => true,
            Ok(Err(_)) => false,
            Err(_) => {
                let asked = tokio::time::timeout(ASK_FOR, connection.execute("SELECT 1")).await;
                matches!(asked, Ok(Ok(_)))
            }
        };
        if !is_alive {
            self.connection = None;
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<PgListener, DbErr> {
    let listening = async {
        let mut listener = PgListener::connect(url).await?;
        listener.listen(CHANNEL).await?;
        Ok::<_, sea_orm::sqlx::Error>(listener)
    };
    match tokio::time::timeout(CONNECT_FOR, listening).await {
        Ok(Ok(listener)) => Ok(listener),
        Ok(Err(error)) => Err(DbErr::Custom(error.to_string())),
        Err(_) => Err(DbErr::Custom("timed out".to_owned())),
    }
}
