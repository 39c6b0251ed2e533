//! Models a failover: two databases, of which the former one keeps running or restarts, transaction
//! ids that are assigned twice, and a replica whose statements may reach either database.

mod state;
mod steps;

use state::{FormerDatabase, Reader};
use steps::Failover;

use crate::explorer::{assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
pub struct Safeguards {
    /// A poll and a heartbeat form a lease only if both come from the same origin.
    lease_origin: bool,
    /// A lookup from another origin is not answered and not cached.
    lookup_origin: bool,
    /// A cursor is valid only for the origin that it was read from.
    cursor_origin: bool,
    /// A poll that does not continue from a cursor clears the cache.
    emptying: bool,
    /// Clearing the cache invalidates lookups in flight.
    emptying_counts: bool,
    /// A crash creates a new origin, although the timeline and the system identifier stay the same.
    incarnation: bool,
    /// A heartbeat counts only if a standby has received it.
    waits_for_standby: bool,
    /// The applied revision is derived from the positions of rows, not from assigned ids.
    revision_of_rows: bool,
    /// A lookup reflects a revision only if it sees the row. It is not enough that the id was
    /// assigned.
    revision_by_row: bool,
}

const ALL: Safeguards = Safeguards {
    lease_origin: true,
    lookup_origin: true,
    cursor_origin: true,
    emptying: true,
    emptying_counts: true,
    incarnation: true,
    waits_for_standby: true,
    revision_of_rows: true,
    revision_by_row: true,
};

/// Explores all combinations of what happens to the former database and what a question requires.
/// Returns the number of states, and the first fault found.
fn explore_all(safe: Safeguards) -> (usize, Option<&'static str>) {
    let mut states = 0;
    for asks in [Reader::Fresh, Reader::MinRevision] {
        for fate in [FormerDatabase::Demoted, FormerDatabase::Crashed] {
            let (count, fault) = explore(&Failover { safe, fate, asks });
            states += count;
            if fault.is_some() {
                return (states, fault);
            }
        }
    }
    (states, None)
}

#[test]
fn with_all_safeguards_no_failover_shows_a_stale_answer() {
    assert_sound("failover", explore_all(ALL), 100_000);
}

#[test]
fn without_any_one_safeguard_some_failover_does() {
    assert_needed(
        "lease_origin",
        explore_all(Safeguards {
            lease_origin: false,
            ..ALL
        }),
    );
    assert_needed(
        "lookup_origin",
        explore_all(Safeguards {
            lookup_origin: false,
            ..ALL
        }),
    );
    assert_needed(
        "cursor_origin",
        explore_all(Safeguards {
            cursor_origin: false,
            ..ALL
        }),
    );
    assert_needed(
        "emptying",
        explore_all(Safeguards {
            emptying: false,
            ..ALL
        }),
    );
    assert_needed(
        "emptying_counts",
        explore_all(Safeguards {
            emptying_counts: false,
            ..ALL
        }),
    );
    assert_needed(
        "incarnation",
        explore_all(Safeguards {
            incarnation: false,
            ..ALL
        }),
    );
    assert_needed(
        "waits_for_standby",
        explore_all(Safeguards {
            waits_for_standby: false,
            ..ALL
        }),
    );
    assert_needed(
        "revision_of_rows",
        explore_all(Safeguards {
            revision_of_rows: false,
            ..ALL
        }),
    );
    assert_needed(
        "revision_by_row",
        explore_all(Safeguards {
            revision_by_row: false,
            ..ALL
        }),
    );
}
