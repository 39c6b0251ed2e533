//! A point in the history of changes: opaque to clients, {epoch, position} inside.

use std::fmt;

use crate::field::Problem;

/// A point in the history: everything up to `position` of the history called `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Which history: random, written by the first migration.
    pub epoch: i64,
    /// How far.
    pub position: i64,
}

/// What one reading of the store sees of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which history.
    pub epoch: i64,
    /// Everything below is seen.
    pub below: i64,
    /// Nothing from here on is.
    pub from: i64,
    /// What is not seen between the two: transactions still at work.
    pub but: Vec<i64>,
}

impl Snapshot {
    /// Whether a point in the history is seen.
    #[must_use]
    pub fn reflects(&self, revision: Revision) -> bool {
        let position = revision.position;
        revision.epoch == self.epoch
            && (position < self.below || (position < self.from && !self.but.contains(&position)))
    }

    /// The snapshot in PostgreSQL's own words: `below:from:but,but`.
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
    /// The point that a client sends back.
    ///
    /// # Errors
    /// A problem for anything that is not one of ours.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::new("is not a revision: send one as it was answered, or nothing");
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
