//! A point in the history of changes: opaque to clients, {epoch, position} inside.

use std::fmt;

/// A point in the history: everything up to `position` of the history called `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Which history: random, written by the first migration.
    pub epoch: i64,
    /// How far.
    pub position: i64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:x}", self.epoch, self.position)
    }
}
