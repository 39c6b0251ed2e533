//! Where the store is. Prints as its kind, host and name only: a URL can hold a password.

use std::{fmt, path::PathBuf, str::FromStr};

use sea_orm::sqlx::postgres::PgConnectOptions;

/// A place for a store.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file, for one process.
    Sqlite(PathBuf),
    /// A PostgreSQL database, for several replicas.
    Postgres(PostgresUrls),
}

/// The ways to a PostgreSQL database; neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrls {
    /// For calls; may lead through a pooler.
    pub(super) url: String,
    /// Past any pooler: for LISTEN, the feed and migrations. The same, where there is none.
    direct: Option<String>,
}

impl PostgresUrls {
    /// The way past any pooler.
    pub(super) fn direct(&self) -> &str {
        self.direct.as_deref().unwrap_or(&self.url)
    }
}

/// A database URL that names no place we know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected sqlite:PATH, such as sqlite:/var/lib/stacktoken/stacktoken.db, or \
     postgres://USER:PASSWORD@HOST:PORT/DATABASE"
)]
pub struct LocationError;

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> Result<Self, LocationError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return parse_path(path);
        }
        check_postgres(url)?;
        Ok(Self::Postgres(PostgresUrls {
            url: url.to_owned(),
            direct: None,
        }))
    }
}

impl Location {
    /// The same place, with a way past the pooler.
    ///
    /// # Errors
    /// [`LocationError`] where that is no PostgreSQL URL, or the place is not PostgreSQL.
    pub fn with_direct(self, direct: &str) -> Result<Self, LocationError> {
        check_postgres(direct)?;
        match self {
            Self::Postgres(urls) => Ok(Self::Postgres(PostgresUrls {
                direct: Some(direct.to_owned()),
                ..urls
            })),
            Self::Sqlite(_) => Err(LocationError),
        }
    }
}

fn parse_path(path: &str) -> Result<Location, LocationError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains(['?', '#']) || path.contains(":memory:") {
        return Err(LocationError);
    }
    Ok(Location::Sqlite(PathBuf::from(path)))
}

fn check_postgres(url: &str) -> Result<(), LocationError> {
    let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if known && url.parse::<PgConnectOptions>().is_ok() {
        Ok(())
    } else {
        Err(LocationError)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "SQLite file {}", path.display()),
            Self::Postgres(urls) => match urls.url.parse::<PgConnectOptions>() {
                Ok(options) => {
                    let database = options.get_database().unwrap_or_default();
                    let (host, port) = (options.get_host(), options.get_port());
                    write!(f, "PostgreSQL database {database} on {host}:{port}")
                }
                Err(_) => f.write_str("PostgreSQL"),
            },
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
