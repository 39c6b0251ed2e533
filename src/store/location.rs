//! Where the store is. Prints as its kind and file only: a DSN can hold a password.

use std::{fmt, path::PathBuf, str::FromStr};

/// A place for a store.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file, for one process.
    Sqlite(PathBuf),
}

/// A database URL that names no place we know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected sqlite:PATH, such as sqlite:/var/lib/stacktoken/stacktoken.db")]
pub struct LocationError;

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> Result<Self, LocationError> {
        let path = url.strip_prefix("sqlite:").ok_or(LocationError)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains(['?', '#']) || path.contains(":memory:") {
            return Err(LocationError);
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "SQLite file {}", path.display()),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
