//! The identity of the database that answers. An address can be moved to another database, and the
//! database behind an address can crash, be promoted or be restored. After that, data that was read
//! from the former database says nothing about the new one.

/// The identity of a database between two restarts, promotions or restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The system identifier of the database cluster. A copy of the cluster's files has the same
    /// identifier. `None` for lookups, which do not select it because the server would have to read
    /// a file.
    pub system: Option<i64>,
    /// The timeline, which changes with every promotion.
    pub timeline: String,
    /// The epoch of the change log. A copy of the rows has the same epoch.
    pub epoch: i64,
    /// A random number that every crash and promotion deletes.
    pub incarnation: i64,
    /// Identifies the tables that the statements use, because another schema can have tables with
    /// the same names.
    pub tables: i64,
    /// When the server was started, in microseconds since the Unix epoch. Distinguishes a server
    /// that was stopped cleanly from a copy of it.
    pub started: i64,
}

impl Origin {
    /// Returns the origin of a store that belongs to a single process. No other store can replace
    /// it.
    #[must_use]
    pub const fn sole(epoch: i64) -> Self {
        Self {
            system: None,
            timeline: String::new(),
            epoch,
            incarnation: 0,
            tables: 0,
            started: 0,
        }
    }

    /// Returns whether both origins identify the same database in the same period. System
    /// identifiers are compared only if both are known.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let system = match (self.system, other.system) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        system
            && self.timeline == other.timeline
            && self.epoch == other.epoch
            && self.incarnation == other.incarnation
            && self.tables == other.tables
            && self.started == other.started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            system: Some(1),
            timeline: "00000001".into(),
            epoch: 2,
            incarnation: 3,
            tables: 5,
            started: 4,
        }
    }

    #[test]
    fn every_part_of_an_origin_distinguishes_it() {
        let others: [fn(&mut Origin); 6] = [
            |origin| origin.system = Some(9),
            |origin| origin.timeline = "00000002".into(),
            |origin| origin.epoch = 9,
            |origin| origin.incarnation = 9,
            |origin| origin.tables = 9,
            |origin| origin.started = 9,
        ];
        assert!(origin().is(&origin()));
        for change in others {
            let mut other = origin();
            change(&mut other);
            assert!(!origin().is(&other), "{other:?}");
        }
    }

    #[test]
    fn what_a_look_up_does_not_ask_for_is_not_compared() {
        let look_up = Origin {
            system: None,
            ..origin()
        };
        assert!(origin().is(&look_up) && look_up.is(&origin()));
    }
}
