//! A failover: two databases, of which the former goes on or restarts, transaction ids that are
//! given out again, and a replica whose statements may reach either.

mod steps;
mod world;

use steps::Failover;
use world::{Asks, Fate};

use crate::explorer::{assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
pub struct Safeguards {
    /// A reading and a heartbeat make one lease only if they are of one origin.
    lease_origin: bool,
    /// A look-up of another origin is neither answered nor cached.
    lookup_origin: bool,
    /// A cursor is valid for the origin that it was read from.
    cursor_origin: bool,
    /// A reading that does not go on from a cursor empties the cache.
    emptying: bool,
    /// Emptying refuses look-ups that were under way.
    emptying_counts: bool,
    /// A crash makes another origin, though timeline and system stay the same.
    incarnation: bool,
    /// A heartbeat counts only if a standby has it.
    waits_for_standby: bool,
    /// What is applied is told by the positions of rows, not by ids given out.
    revision_of_rows: bool,
    /// A look-up reflects a revision if it sees that row, not if the id was given out.
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

/// Both fates and both questions: how many states there are, and what goes wrong in some.
fn explore_all(safe: Safeguards) -> (usize, Option<&'static str>) {
    let mut states = 0;
    for asks in [Asks::Fresh, Asks::MinRevision] {
        for fate in [Fate::Demoted, Fate::Crashed] {
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
