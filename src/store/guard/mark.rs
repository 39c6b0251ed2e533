//! The high-water mark: up to where the change log is known to have been written. Each replica
//! keeps its own, in a file that is replaced as a whole.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{GuardError, place::Place, seal::Seal};

/// The file that names the guard and the epoch of the change log that it guards.
pub(super) const GUARD: &str = "guard.json";
/// How the names of marks begin.
pub(super) const MARK: &str = "mark-";
/// How old a mark must be before another replica removes it, in microseconds. A replica that runs
/// renews its mark more often.
pub(super) const STALE: i64 = 3_600_000_000;

/// The guard, and the change log that it guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct GuardFile {
    /// A random number, which is also in the database.
    pub guard: i64,
    /// The epoch of the change log.
    pub epoch: i64,
}

/// A row of the change log: its position and its instant, in microseconds. SQLite assigns a
/// position again in a file that was restored, but not with the same instant.
pub(super) type Row = (i64, i64);

/// A mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The guard and the epoch in which the rows exist.
    #[serde(flatten)]
    pub of: GuardFile,
    /// The newest rows. There are several, because on PostgreSQL a row can become visible after one
    /// with a higher position.
    pub rows: Vec<Row>,
    /// When the mark was written.
    pub written_at: i64,
}

fn damaged(name: &str) -> GuardError {
    GuardError::Damaged(name.to_owned())
}

fn read<T: DeserializeOwned>(
    place: &dyn Place,
    seal: &Seal,
    name: &str,
) -> Result<Option<T>, GuardError> {
    let Some(bytes) = place.read(name)? else {
        return Ok(None);
    };
    let value = seal.read(name, &bytes).ok_or_else(|| damaged(name))?;
    Ok(Some(value))
}

impl GuardFile {
    pub fn load(place: &dyn Place, seal: &Seal) -> Result<Option<Self>, GuardError> {
        read(place, seal, GUARD)
    }

    /// Creates the file, unless another replica has.
    pub fn create(self, place: &dyn Place, seal: &Seal) -> io::Result<()> {
        place.create(GUARD, &seal.write(GUARD, &self)).map(drop)
    }

    pub fn replace(self, place: &dyn Place, seal: &Seal) -> io::Result<()> {
        place.replace(GUARD, &seal.write(GUARD, &self))
    }
}

impl Mark {
    /// Writes the mark of a replica.
    pub fn write(&self, place: &dyn Place, seal: &Seal, replica: &str) -> io::Result<()> {
        let name = format!("{MARK}{replica}.json");
        place.replace(&name, &seal.write(&name, self))
    }

    /// Reads the marks of all replicas, with the names of their files.
    pub fn all(place: &dyn Place, seal: &Seal) -> Result<Vec<(String, Self)>, GuardError> {
        let names = place.names()?.into_iter();
        let mut marks = Vec::new();
        for name in names.filter(|name| name.starts_with(MARK)) {
            // Another replica may have removed it.
            if let Some(mark) = read(place, seal, &name)? {
                marks.push((name, mark));
            }
        }
        Ok(marks)
    }
}
