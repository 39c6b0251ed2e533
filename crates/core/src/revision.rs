//! A position in the change log. Clients see it as an opaque string. Internally it is `{epoch,
//! position}`.

use std::fmt;

use crate::field::Problem;

/// A position in the change log. It represents all changes up to `position` in the log with this
/// `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The epoch of the change log, which is a random number. The first migration writes it, and a
    /// new one is written after a restore.
    pub epoch: i64,
    /// The position within the change log.
    pub position: i64,
}

/// The part of the change log that is visible to one read of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The epoch of the change log.
    pub epoch: i64,
    /// All positions below this one are visible.
    pub below: i64,
    /// No position at or above this one is visible.
    pub from: i64,
    /// The positions from `below` up to `from` that are not visible, because their transactions are
    /// still in progress.
    pub but: Vec<i64>,
}

impl Snapshot {
    /// Returns whether the change at this revision is visible in the snapshot.
    #[must_use]
    pub fn reflects(&self, revision: Revision) -> bool {
        let position = revision.position;
        revision.epoch == self.epoch
            && (position < self.below || (position < self.from && !self.but.contains(&position)))
    }

    /// Parses a snapshot in PostgreSQL's format `xmin:xmax:xip,xip`. The three parts become
    /// `below`, `from` and `but`.
    #[must_use]
    pub fn parse(epoch: i64, text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (below, from) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let but = parts.next()?.split(',').filter(|number| !number.is_empty());
        let but = but
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        Some(Self {
            epoch,
            below,
            from,
            but,
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:x}", self.epoch, self.position)
    }
}

impl Revision {
    /// Parses a revision that a client sends.
    ///
    /// # Errors
    /// Returns a problem for any string that is not a revision of this service.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new("is not a revision: send one from an earlier response, or leave it empty")
        };
        let (epoch, position) = text.split_at_checked(16).ok_or_else(wrong)?;
        let hex = |digits: &str| {
            digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !hex(epoch) || !hex(position) {
            return Err(wrong());
        }
        let epoch = u64::from_str_radix(epoch, 16)
            .map_err(|_| wrong())?
            .cast_signed();
        let position = i64::from_str_radix(position, 16).map_err(|_| wrong())?;
        Ok(Self { epoch, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_round_trips() {
        for (epoch, position) in [(0, 0), (-1, 1), (i64::MIN, i64::MAX), (7, 255)] {
            let revision = Revision { epoch, position };
            assert_eq!(Revision::parse(&revision.to_string()), Ok(revision));
        }
    }

    #[test]
    fn a_snapshot_reflects_what_it_sees() {
        let snapshot = Snapshot::parse(7, "10:15:10,12").unwrap();
        let seen = |position| snapshot.reflects(Revision { epoch: 7, position });
        let all: Vec<_> = (8..17).filter(|position| seen(*position)).collect();
        assert_eq!(all, [8, 9, 11, 13, 14]);
        assert!(!snapshot.reflects(Revision {
            epoch: 8,
            position: 1
        }));
        assert_eq!(Snapshot::parse(7, "10:15:").unwrap().but, Vec::<i64>::new());
        assert_eq!(Snapshot::parse(7, "10"), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "1",
            "zz",
            "0000000000000000",
            "0000000000000000-1",
            "0000000000000000+1",
            "é",
        ] {
            assert!(Revision::parse(text).is_err(), "{text}");
        }
    }
}
