//! Which database answered. An address can be moved to another database, and a database can be
//! crashed, promoted or restored under its address: what was learned from one then says nothing
//! about the other.

/// The identity of a database, at one time of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What the database cluster was named when it was made; a copy of its files keeps it.
    /// Look-ups do not ask for it, since it costs the reading of a file.
    pub system: Option<i64>,
    /// Counts promotions.
    pub timeline: String,
    /// The history that the rows belong to; a copy of the rows keeps it.
    pub epoch: i64,
    /// Random, and gone with every crash and promotion.
    pub incarnation: i64,
    /// Which tables its statements are about: another schema can have tables of the same names.
    pub tables: i64,
    /// When the server was started, in microseconds: tells a copy of a server that was stopped
    /// in order from the original.
    pub started: i64,
}

impl Origin {
    /// The one store of a single process, which no other can take the place of.
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

    /// Whether this is the same database at the same time of its life, as far as both know.
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
    fn every_part_tells_origins_apart() {
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
