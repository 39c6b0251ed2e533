//! Models two replicas and one token that is revoked at A, in every order of events at B. Both use
//! one database, whose transaction ids only grow.

mod state;
mod steps;

use state::{ALL, Safeguards};
use steps::{Freshness, Scope};

use crate::explorer::{assert_needed, assert_sound, explore};

/// Explores all scopes. Returns the number of states, and the first fault found.
fn explore_all(safe: Safeguards) -> (usize, Option<&'static str>) {
    let mut states = 0;
    for scope in [Scope::AtA, Scope::AtBOvertaken, Scope::AtBFailing] {
        let (count, fault) = explore(&Freshness { safe, scope });
        states += count;
        if fault.is_some() {
            return (states, fault);
        }
    }
    (states, None)
}

#[test]
fn with_all_safeguards_no_order_of_events_shows_a_stale_answer() {
    assert_sound("freshness", explore_all(ALL), 100_000);
}

#[test]
fn without_any_one_safeguard_some_order_does() {
    for (name, safe) in [
        (
            "lease",
            Safeguards {
                lease: false,
                ..ALL
            },
        ),
        (
            "heartbeat",
            Safeguards {
                heartbeat: false,
                ..ALL
            },
        ),
        (
            "read_start",
            Safeguards {
                read_start: false,
                ..ALL
            },
        ),
        (
            "generations",
            Safeguards {
                generations: false,
                ..ALL
            },
        ),
        (
            "flights",
            Safeguards {
                flights: false,
                ..ALL
            },
        ),
        (
            "reading_age",
            Safeguards {
                reading_age: false,
                ..ALL
            },
        ),
        (
            "own_changes",
            Safeguards {
                own_changes: false,
                ..ALL
            },
        ),
        (
            "commit_order",
            Safeguards {
                commit_order: false,
                ..ALL
            },
        ),
        (
            "reflection",
            Safeguards {
                reflection: false,
                ..ALL
            },
        ),
    ] {
        assert_needed(name, explore_all(safe));
    }
}
