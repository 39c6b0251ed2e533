//! A point in the history of changes: opaque to clients, {epoch, position} inside.

use std::fmt;

use super::field::Problem;

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
