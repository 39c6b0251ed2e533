//! The statements whose answers are evidence of freshness, composed for the engine and for what the
//! role may ask.

use super::{
    feed,
    origin::{ALL_ON_SQLITE, CLOCK, ON_SQLITE, Sources},
    trust, verdicts,
};

/// The text of each statement whose answer is evidence. Composed once: an origin is asked for in the
/// same statement as the data.
pub(super) struct Statements {
    pub sources: Sources,
    pub poll: String,
    pub look_up: String,
    pub find_change: String,
    pub beat: String,
    /// Asked for under the lock of a stack; not on SQLite, where nobody else makes changes.
    pub decide: String,
}

impl Statements {
    pub fn on_postgres(sources: Sources) -> Self {
        Self {
            poll: feed::on_postgres(&sources.all_columns()),
            look_up: verdicts::on_postgres(&sources.columns()),
            find_change: verdicts::recorded::on_postgres(&sources.columns()),
            beat: format!(
                "WHERE name = 'heartbeat' RETURNING {}, {CLOCK} AS clock",
                sources.all_columns()
            ),
            decide: trust::on_postgres(sources),
            sources,
        }
    }

    pub fn on_sqlite() -> Self {
        Self {
            poll: feed::on_sqlite(&format!("{ON_SQLITE}, {ALL_ON_SQLITE}")),
            look_up: verdicts::on_sqlite(ON_SQLITE),
            // Never asked: no id is given out twice.
            find_change: String::new(),
            beat: "WHERE name = 'heartbeat'".to_owned(),
            decide: String::new(),
            sources: Sources::NONE,
        }
    }
}
