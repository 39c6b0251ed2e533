//! Detects a pooler in transaction mode, which gives each transaction the connection that happens
//! to be free: two sessions then share one server process.

use sea_orm::sqlx::{
    self, Connection as _, Executor as _, Row as _,
    postgres::{PgConnectOptions, PgConnection},
};

use crate::store::{Location, engine::reach::CONNECT_FOR};

/// How often to look for another server process. A pooler may use its connections in turn.
const LOOKS: usize = 8;

/// What stands between this process and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Nothing, or a pooler in session mode.
    Session,
    /// A pooler in transaction mode.
    Transaction {
        /// Whether prepared statements work through the pooler.
        prepares: bool,
    },
}

impl Location {
    /// Detects a pooler behind the URL for calls and behind the direct URL. A URL that cannot be
    /// used counts as [`Pooling::Session`]; [`Self::reach`] says why it cannot be used.
    pub async fn pooling(&self) -> [Pooling; 2] {
        let Self::Postgres(urls) = self else {
            return [Pooling::Session; 2];
        };
        let (url, direct) = (urls.url(), urls.direct());
        let calls = pooling_of(&url).await;
        if url == direct {
            return [calls; 2];
        }
        [calls, pooling_of(&direct).await]
    }

    /// Returns whether a direct URL is set.
    #[must_use]
    pub fn has_direct(&self) -> bool {
        matches!(self, Self::Postgres(urls) if urls.direct() != urls.url())
    }
}

async fn pooling_of(url: &str) -> Pooling {
    let found = tokio::time::timeout(CONNECT_FOR, detect(url)).await;
    found.ok().and_then(Result::ok).unwrap_or(Pooling::Session)
}

async fn detect(url: &str) -> Result<Pooling, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let mut one = PgConnection::connect_with(&options).await?;
    let mut other = PgConnection::connect_with(&options).await?;
    let shared = are_shared(&mut one, &mut other).await?;
    let pooling = if shared {
        let prepares = prepares(&mut one, &mut other).await;
        Pooling::Transaction { prepares }
    } else {
        Pooling::Session
    };
    let _ = one.close().await;
    let _ = other.close().await;
    Ok(pooling)
}

/// Returns whether two sessions get the same server process, or one session gets several.
async fn are_shared(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let first = server_process(one).await?;
    for _ in 0..LOOKS {
        other.execute("BEGIN").await?;
        // Asked first, because a small pool could make the other session wait.
        let is_shared =
            server_process(other).await? == first || server_process(one).await? != first;
        other.execute("ROLLBACK").await?;
        if is_shared {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether both sessions can prepare a statement of the same name. Without support of the
/// pooler, the second one finds the statement of the first.
async fn prepares(one: &mut PgConnection, other: &mut PgConnection) -> bool {
    for _ in 0..LOOKS {
        for session in [&mut *one, &mut *other] {
            if sqlx::query("SELECT 1")
                .execute(&mut *session)
                .await
                .is_err()
            {
                return false;
            }
        }
    }
    true
}

/// Returns the id of the process that serves a session. Uses no prepared statement.
async fn server_process(session: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = sqlx::raw_sql("SELECT pg_backend_pid()")
        .fetch_one(session)
        .await?;
    row.try_get(0)
}
