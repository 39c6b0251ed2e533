//! Connects to a PostgreSQL database once, without a pool, because a pool retries until its
//! time-out and then reports only that it timed out. Messages of the driver and of the server can
//! contain part of the URL, so errors say in this program's own words why the database cannot be
//! used.

use std::{borrow::Cow, io, time::Duration};

use sea_orm::sqlx::{
    self, Connection as _,
    postgres::{PgConnectOptions, PgConnection},
};

use crate::domain::clock::Clock;
use crate::store::{Location, engine::database_url::PostgresUrls};

/// The time limit of a connection attempt.
pub(in crate::store) const CONNECT_FOR: Duration = Duration::from_secs(10);

/// Selects whether the database is a standby, and whether it is read-only.
const STANDING: &str =
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{location} {why}")]
pub struct Unreachable {
    location: Location,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("cannot be reached: {0}")]
    Io(io::Error),
    #[error("does not answer")]
    Silent,
    #[error("cannot be reached over TLS as its URL requires: {0}")]
    Tls(String),
    #[error("accepts no connections now: it is starting, stopping or at its connection limit")]
    Busy,
    #[error("refuses the user name or the password, or has no such role")]
    Credential,
    #[error("does not exist: the server has no database of this name")]
    Missing,
    #[error("is read-only: a standby, or a primary that was demoted")]
    Standby,
    #[error("is read-only: default_transaction_read_only is on")]
    ReadOnly,
    #[error("refuses the connection (SQLSTATE {0})")]
    Refused(String),
    #[error("cannot be used")]
    Other,
}

impl Unreachable {
    /// Returns whether the cause may go away without a change to the settings.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self.why,
            Why::Io(_) | Why::Silent | Why::Busy | Why::Standby | Why::ReadOnly
        )
    }

    /// Returns a short name of the cause, which does not change.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.why {
            Why::Io(_) | Why::Silent | Why::Busy | Why::Other => "unreachable",
            Why::Refused(code) if code == "08P01" => "protocol",
            Why::Refused(_) => "refused",
            Why::Tls(_) => "tls",
            Why::Credential => "credential",
            Why::Missing => "missing",
            Why::Standby => "standby",
            Why::ReadOnly => "read-only",
        }
    }

    /// Returns whether the database answers but accepts no changes.
    pub(in crate::store) const fn is_read_only(&self) -> bool {
        matches!(self.why, Why::Standby | Why::ReadOnly)
    }
}

impl Location {
    /// Connects with each URL of the database, and checks that the database accepts changes.
    ///
    /// # Errors
    /// Returns [`Unreachable`], which says why the database cannot be used.
    pub async fn reach(&self, clock: &dyn Clock) -> Result<(), Unreachable> {
        let Self::Postgres(urls) = self else {
            return Ok(());
        };
        let reached = connect_to_each(urls, clock).await;
        reached.map_err(|why| Unreachable {
            location: self.clone(),
            why,
        })
    }
}

async fn connect_to_each(urls: &PostgresUrls, clock: &dyn Clock) -> Result<(), Why> {
    let (url, direct) = (urls.url(), urls.direct());
    let began = clock.monotonic();
    connect_to(&url).await?;
    urls.note_connected(clock.monotonic().saturating_sub(began));
    if direct != url {
        connect_to(&direct).await?;
    }
    Ok(())
}

async fn connect_to(url: &str) -> Result<(), Why> {
    let options: PgConnectOptions = url.parse().map_err(|_| Why::Other)?;
    let reaching = async {
        let mut connection = PgConnection::connect_with(&options).await?;
        let state = sqlx::query_as::<_, (bool, bool)>(STANDING);
        let state = state.fetch_one(&mut connection).await?;
        // The check is done, so an error on closing does not matter.
        let _ = connection.close().await;
        Ok(state)
    };
    match tokio::time::timeout(CONNECT_FOR, reaching).await {
        Err(_) => Err(Why::Silent),
        Ok(Err(error)) => Err(why(error)),
        Ok(Ok((true, _))) => Err(Why::Standby),
        Ok(Ok((_, true))) => Err(Why::ReadOnly),
        Ok(Ok(_)) => Ok(()),
    }
}

fn why(error: sqlx::Error) -> Why {
    match error {
        sqlx::Error::Io(source) => Why::Io(source),
        sqlx::Error::Tls(source) => Why::Tls(source.to_string()),
        sqlx::Error::Database(refused) => match refused.code().unwrap_or(Cow::Borrowed("?")) {
            code if code.starts_with("28") => Why::Credential,
            code if code == "3D000" => Why::Missing,
            // The codes are `cannot_connect_now`, the other shutdown codes, and
            // `too_many_connections`.
            code if code.starts_with("57P") || code.starts_with("53") => Why::Busy,
            code => Why::Refused(code.into_owned()),
        },
        _ => Why::Other,
    }
}
