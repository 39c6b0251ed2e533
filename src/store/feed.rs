//! Reading the history of changes, so that a replica hears of what others did, and whoever
//! watches of what anybody did.

use std::time::Duration;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    DatabaseConnection, DbErr, FromQueryResult as _, QueryResult, Statement,
    sqlx::{Executor as _, postgres::PgListener},
};
use uuid::Uuid;

use super::{
    Error, Location, Store,
    changes::{CHANNEL, Kind},
    evidence::first,
    location::PostgresUrls,
    origin::full_origin_of,
};
use crate::domain::{
    id::{StackUid, TokenUid},
    origin::Origin,
    timestamp::Timestamp,
};

/// So many changes at once are not worth telling apart.
const MOST: usize = 10_000;

/// Up to where the history was read, and of which database. What was read of one says nothing
/// about another: numbers of transactions that were not on disk are given out again after a
/// crash or a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// On PostgreSQL a transaction id: a row may become visible after one with a higher number,
    /// but never one of a transaction below the oldest still at work. On SQLite the number of
    /// a row, since there is one writer.
    next: i64,
    origin: Origin,
}

impl Cursor {
    /// The last position of which everything is known.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.next - 1
    }

    /// Which history this is.
    #[must_use]
    pub const fn epoch(&self) -> i64 {
        self.origin.epoch
    }

    /// The database that was read.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// As if everything up to this position of the same history were known.
    fn after(&self, position: i64) -> Self {
        Self {
            next: position.saturating_add(1),
            ..self.clone()
        }
    }
}

/// One change that somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; tells it from others that are read again with it.
    pub id: i64,
    /// Its point in the history.
    pub position: i64,
    /// The stack.
    pub stack: StackUid,
    /// The token; `None` where it is about the stack as a whole.
    pub token: Option<TokenUid>,
    /// Whether nothing that was known before can be wrong after it.
    pub harmless: bool,
    /// When it was made, by the clock of whoever made it.
    pub changed_at: Timestamp,
}

/// Why changes cannot be told one by one: nothing known before counts any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was read before, or of another database or time of its life: it was crashed,
    /// promoted, restored, or another was put in its place.
    Elsewhere,
    /// They are too many, or are no longer kept.
    Untold,
}

/// What was read of the history.
#[derive(Debug)]
pub struct History {
    /// The changes since, by position.
    pub changes: Result<Vec<Change>, Lost>,
    /// Where to go on.
    pub next: Cursor,
    /// The highest position of a change, of those up to which everything is known. A change
    /// that was acknowledged keeps its position through any failover, which the number of a
    /// transaction that wrote none may not.
    pub resume: i64,
    /// The highest position of a change that can be seen.
    pub newest: i64,
}

/// Rows of transactions that may not have been visible before, and from where to go on; one
/// statement is one snapshot, so nothing slips between. Every `ORDER BY` names its table: a bare
/// `xid` would mean the output column, which is no column of the index, and sort the whole
/// table. The limit stands inside, so that the index is the cheapest way whatever the planner
/// believes about the number of rows.
pub(super) fn on_postgres(origin: &str) -> String {
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
/// The same where there is one writer: every row that can be seen is complete.
pub(super) fn on_sqlite(origin: &str) -> String {
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
    /// What was changed since, for the feed; from the primary only.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] where the database is none; [`Error`] where it cannot be read.
    pub async fn read_history(&self, since: Option<&Cursor>) -> Result<History, Error> {
        let control = self.pools.load().control.clone();
        self.read_since(&control, since).await
    }

    /// What was changed after a position of the history that `feed` reads, for one who watches;
    /// from the primary only. Without a position nothing but where the history stands.
    ///
    /// # Errors
    /// As those of [`Self::read_history`].
    pub async fn read_backlog(&self, from: Option<i64>, feed: &Cursor) -> Result<History, Error> {
        let since = feed.after(from.unwrap_or(i64::MAX));
        let span = self.span("read_backlog");
        let reader = self.pools.load().reader.clone();
        let mut read = self.read_since(&reader, Some(&since)).await;
        if self.is_worth_renewing(&read).await {
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
        // From the end of all time there is nothing to be read but where to begin.
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
        // Where a purge left nothing that is complete, what it went up to is.
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

    /// Listens for hints; `None` on SQLite, where nobody else makes changes.
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

/// The changes in rows of which one stands for none.
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
    // A kind that a newer version writes is taken for one that matters.
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

/// Hears hints. Losing it costs speed, never truth: the history is read without it too.
pub struct Listener {
    urls: PostgresUrls,
    connection: Option<PgListener>,
}

/// How long it may take to begin to listen.
const CONNECT_FOR: Duration = Duration::from_secs(3);
/// How often a quiet connection is asked whether it still stands: nothing else would notice
/// a peer that vanished.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to say so.
const ASK_FOR: Duration = Duration::from_secs(1);

impl Listener {
    /// Gives up the connection, which may lead to a database that is not trusted any more.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    /// Returns at the next hint, and also when hints may have been missed.
    ///
    /// # Errors
    /// Why it cannot listen now; try again later.
    pub async fn hint(&mut self) -> Result<(), DbErr> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(connect(&self.urls.direct()).await?);
            return Ok(());
        };
        let heard = tokio::time::timeout(ASK_EVERY, connection.try_recv()).await;
        let standing = match heard {
            // Of none: the library has connected anew, and whatever came meanwhile is gone.
            Ok(Ok(_)) => true,
            Ok(Err(_)) => false,
            Err(_) => {
                let asked = tokio::time::timeout(ASK_FOR, connection.execute("SELECT 1")).await;
                matches!(asked, Ok(Ok(_)))
            }
        };
        if !standing {
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
