//! The SQL statements whose rows are evidence of freshness, built for the engine and for the
//! columns that the role may read.

use crate::store::{
    change_log::poll,
    engine::origin::{ALL_ON_SQLITE, CLOCK, ON_SQLITE, Sources},
    engine::trust,
    lookup,
};

/// The text of each statement whose rows are evidence. Each is built once, and selects the origin
/// together with the data.
pub(in crate::store) struct Statements {
    pub sources: Sources,
    pub poll: String,
    pub look_up: String,
    pub find_change: String,
    pub beat: String,
    /// Runs under the lock of a stack. Empty on SQLite, where no other process makes changes.
    pub decide: String,
    /// The same statement as `decide`, but it also selects the role of a member of the stack.
    pub decide_with_role: String,
}

impl Statements {
    pub fn on_postgres(sources: Sources) -> Self {
        Self {
            poll: poll::on_postgres(&sources.all_columns()),
            look_up: lookup::on_postgres(&sources.columns()),
            find_change: lookup::recorded::on_postgres(&sources.columns()),
            beat: format!(
                "WHERE name = 'heartbeat' RETURNING {}, {CLOCK} AS clock",
                sources.all_columns()
            ),
            decide: trust::on_postgres(sources),
            decide_with_role: trust::with_role_on_postgres(sources),
            sources,
        }
    }

    pub fn on_sqlite() -> Self {
        Self {
            poll: poll::on_sqlite(&format!("{ON_SQLITE}, {ALL_ON_SQLITE}")),
            look_up: lookup::on_sqlite(ON_SQLITE),
            // Never executed, because SQLite assigns no id twice.
            find_change: String::new(),
            beat: "WHERE name = 'heartbeat'".to_owned(),
            decide: String::new(),
            decide_with_role: String::new(),
            sources: Sources::NONE,
        }
    }
}
