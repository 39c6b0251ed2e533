//! Reads the change log, so that a replica learns of changes made by others, and a watcher of all
//! changes.

use std::time::Duration;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    DatabaseConnection, DbErr, FromQueryResult as _, QueryResult, Statement,
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

/// The most changes that one read returns one by one; beyond that it returns [`Lost::Untold`].
const MOST: usize = 10_000;

/// Up to where the change log was read, and in which database. A cursor means nothing in another
/// database: after a crash or a promotion, transaction ids that were not on disk are assigned
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// On PostgreSQL a transaction id: a row may become visible after one with a higher id, but
    /// never one of a transaction below the oldest still running. On SQLite a row id, since there
    /// is one writer.
    next: i64,
    origin: Origin,
}

impl Cursor {
    /// Returns the last position up to which everything was read.
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

    /// Returns a cursor as if everything up to this position of the same change log had been read.
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
    /// Its row id, by which a reader recognizes a change that it reads again.
    pub id: i64,
    /// Its position in the change log.
    pub position: i64,
    /// The stack.
    pub stack: StackUid,
    /// The token; `None` if the change is about the stack as a whole.
    pub token: Option<TokenUid>,
    /// Whether it cannot make any cached fact wrong.
    pub harmless: bool,
    /// When it was made, by the clock that decided it (R8).
    pub changed_at: Timestamp,
}

/// Why changes cannot be returned one by one: nothing read before is valid any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There is no cursor, or it is of another database or incarnation: after a crash, a promotion
    /// or a restore, or if another database took its place.
    Elsewhere,
    /// There are too many changes, or some were purged.
    Untold,
}

/// The result of reading the change log.
#[derive(Debug)]
pub struct History {
    /// The changes since the cursor, by position.
    pub changes: Result<Vec<Change>, Lost>,
    /// The cursor for the next read.
    pub next: Cursor,
    /// The highest position of a change, among those up to which everything was read. An
    /// acknowledged change keeps its position through any failover; the id of a transaction that
    /// wrote no change may not.
    pub resume: i64,
    /// The highest visible position of a change.
    pub newest: i64,
}

/// Returns the statement for rows that may not have been visible before, and the next cursor. One
/// statement is one snapshot, so no row is missed. Every `ORDER BY` names its table: a bare `xid`
/// would mean the output column, which is not in the index, and sort the whole table. The limit is
/// inside the subquery, so that the index is the cheapest plan whatever row count the planner
/// estimates.
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
/// Returns the same statement for SQLite. There is one writer, so every visible row is complete.
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
    /// Reads the changes since a cursor, for the change log; from the primary only.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] if the database is not the primary; [`Error`] if it cannot be read.
    pub async fn read_history(&self, since: Option<&Cursor>) -> Result<History, Error> {
        let control = self.pools.load().control.clone();
        self.read_since(&control, since).await
    }

    /// Reads the changes after a position of the change log that `feed` reads, for a watcher; from
    /// the primary only. Without a position, returns only where the change log ends.
    ///
    /// # Errors
    /// As for [`Self::read_history`].
    pub async fn read_backlog(&self, from: Option<i64>, feed: &Cursor) -> Result<History, Error> {
        let since = feed.after(from.unwrap_or(i64::MAX));
        let span = self.span("read_backlog");
        let reader = self.pools.load().reader.clone();
        let mut read = self.read_since(&reader, Some(&since)).await;
        if self.renew_after_lost_connection(&read).await {
            let reader = self.pools.load().reader.clone();
            read = self.read_since(&reader, Some(&since)).await;
        }
        span.end(read.as_ref().err().and_then(Error::kind));
        read
    }

    async fn read_since(
        &self,
        connection: &DatabaseConnection,
        since: Option<&Cursor>,
    ) -> Result<History, Error> {
        self.require_file()?;
        // Without a cursor, no row matches and only the next cursor is read.
        let from = since.map_or(i64::MAX, |cursor| cursor.next);
        let most = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let values = [from.to_string().into(), most.into()];
        let statement =
            Statement::from_sql_and_values(self.backend(), &self.statements.poll, values);
        let rows = self.read_evidence(connection, statement).await?;
        let first = first(&rows)?;
        let next = Cursor {
            next: first.try_get("", "next")?,
            origin: full_origin_of(first)?,
        };
        let at = |name| first.try_get::<Option<i64>>("", name);
        let purged = at("purged")?.unwrap_or_default();
        // If a purge left no complete row, the position up to which it purged counts.
        let resume = at("resume")?.unwrap_or(purged);
        let newest = at("newest")?.unwrap_or(resume);
        let changes = match since.filter(|since| next.origin.is(&since.origin)) {
            None => Err(Lost::Elsewhere),
            Some(since) if rows.len() > MOST || since.position() < purged => Err(Lost::Untold),
            Some(_) => Ok(changes(&rows)?),
        };
        Ok(History {
            changes,
            next,
            resume,
            newest,
        })
    }

    /// Returns a LISTEN connection that reports when to poll; `None` on SQLite, where no other
    /// process makes changes.
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

/// Parses the changes. If there are none, the only row has no id.
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
    // A kind that only a newer version knows counts as harmful.
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

/// A receiver of NOTIFY hints. Losing it costs speed only: the change log is polled as well.
pub struct Listener {
    urls: PostgresUrls,
    connection: Option<PgListener>,
}

/// The time limit to connect and to start listening.
const CONNECT_FOR: Duration = Duration::from_secs(3);
/// How often an idle connection is checked: nothing else would notice a peer that vanished.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The time limit of that check.
const ASK_FOR: Duration = Duration::from_secs(1);

impl Listener {
    /// Closes the connection, which may lead to a database that is no longer trusted.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    /// Returns at the next hint, and also when hints may have been missed.
    ///
    /// # Errors
    /// [`DbErr`] if it cannot listen now; retry later.
    pub async fn hint(&mut self) -> Result<(), DbErr> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(connect(&self.urls.direct()).await?);
            return Ok(());
        };
        let heard = tokio::time::timeout(ASK_EVERY, connection.try_recv()).await;
        let is_alive = match heard {
            // `None` means that the library has reconnected, and hints sent meanwhile are lost.
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
