//! Reading the history of changes, so that a replica hears of what others did. On SQLite
//! there are no others.

use std::{sync::atomic::Ordering, time::Duration};

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ConnectionTrait as _, DbErr, FromQueryResult as _, Statement,
    sqlx::{Executor as _, postgres::PgListener},
};
use uuid::Uuid;

use super::{
    Error, Location, Store,
    changes::{CHANNEL, Kind},
};
use crate::domain::{
    id::{StackUid, TokenUid},
    timestamp::Timestamp,
};

/// So many changes at once are not worth telling apart.
const MOST: usize = 10_000;

/// Up to where the history was read, and of which history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// A transaction id: a row may become visible after one with a higher number, but never
    /// one of a transaction below the oldest still at work.
    next: i64,
    /// Of the database: transaction ids may be given out again after a promotion.
    timeline: String,
    epoch: i64,
}

impl Cursor {
    /// The last position of which everything is known.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.next - 1
    }

    /// Whether a position of the one is comparable with a position of the other.
    fn continues(&self, earlier: &Self) -> bool {
        self.timeline == earlier.timeline && self.epoch == earlier.epoch
    }
}

/// One change that somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; tells it from others that are read again with it.
    pub id: i64,
    /// The stack.
    pub stack: StackUid,
    /// The token; `None` where it is about the stack as a whole.
    pub token: Option<TokenUid>,
    /// Whether nothing that was known before can be wrong after it.
    pub harmless: bool,
    /// When it was made, by the clock of whoever made it.
    pub changed_at: Timestamp,
}

/// What was read of the history.
#[derive(Debug)]
pub struct History {
    /// The changes since; `None` where nothing known before counts any more: there are too
    /// many to tell apart, or the database was promoted or restored meanwhile.
    pub changes: Option<Vec<Change>>,
    /// Where to go on.
    pub next: Cursor,
}

/// Rows of transactions that may not have been visible before, and from where to go on; one
/// statement is one snapshot, so nothing slips between.
const SINCE: &str = "\
    SELECT c.id, c.stack_uid, c.token_uid, c.kind, c.changed_at, \
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS next, \
           (pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on') AS standby, \
           CASE WHEN NOT pg_is_in_recovery() \
                THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline, \
           (SELECT value FROM meta WHERE name = 'epoch') AS epoch \
    FROM (SELECT 1 AS one) AS asked \
    LEFT JOIN changes c ON c.xid >= $1::text::xid8 \
    ORDER BY c.xid, c.id LIMIT $2";

#[derive(sea_orm::FromQueryResult)]
struct Row {
    id: i64,
    stack_uid: Uuid,
    token_uid: Option<Uuid>,
    kind: String,
    changed_at: i64,
}

impl Store {
    /// What others changed since; from the primary only.
    ///
    /// # Errors
    /// [`Error::NotPrimary`] where the database is none; [`Error`] where it cannot be read.
    pub async fn read_history(&self, since: Option<&Cursor>) -> Result<History, Error> {
        // From the end of all time there is nothing to be read but where to begin.
        let from = since.map_or(i64::MAX, |cursor| cursor.next);
        let most = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let values = [from.to_string().into(), most.into()];
        let statement = Statement::from_sql_and_values(self.backend(), SINCE, values);
        let rows = self.pools.load().control.query_all_raw(statement).await?;
        let first = rows
            .first()
            .ok_or_else(|| DbErr::RecordNotFound("a snapshot".to_owned()))?;
        if first.try_get("", "standby")? {
            return Err(Error::NotPrimary);
        }
        let next = Cursor {
            next: first.try_get("", "next")?,
            timeline: first.try_get("", "timeline")?,
            epoch: first.try_get("", "epoch")?,
        };
        self.epoch.store(next.epoch, Ordering::Release);
        let continues = since.is_some_and(|since| next.continues(since));
        if rows.len() > MOST || !continues {
            return Ok(History {
                changes: None,
                next,
            });
        }
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: Option<i64> = row.try_get("", "id")?;
            if id.is_some() {
                changes.push(change(&Row::from_query_result(row, "")?)?);
            }
        }
        Ok(History {
            changes: Some(changes),
            next,
        })
    }

    /// Listens for hints; `None` on SQLite, where nobody else makes changes.
    #[must_use]
    pub fn listener(&self) -> Option<Listener> {
        match &self.location {
            Location::Sqlite(_) => None,
            Location::Postgres(urls) => Some(Listener {
                url: urls.direct().to_owned(),
                connection: None,
            }),
        }
    }
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
        stack: StackUid::from_untyped_uuid(row.stack_uid),
        token: row.token_uid.map(TokenUid::from_untyped_uuid),
        harmless,
        changed_at: Timestamp::from_micros(row.changed_at).ok_or_else(corrupt)?,
    })
}

/// Hears hints. Losing it costs speed, never truth: the history is read without it too.
pub struct Listener {
    url: String,
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
    /// Returns at the next hint, and also when hints may have been missed.
    ///
    /// # Errors
    /// Why it cannot listen now; try again later.
    pub async fn hint(&mut self) -> Result<(), DbErr> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(connect(&self.url).await?);
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
