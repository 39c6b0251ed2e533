//! The possible steps: polls, fills, leases, shared lookups, a crash, a pause (in which only time
//! passes) and a failover of the database.

use super::state::{
    ALL, END, Feed, Flight, Other, Question, Replica, Revoke, Safeguards, State, covers, fault,
    side,
};
use crate::explorer::{Model, Run};

/// The events to explore. Independent scenarios are explored separately, so that there are fewer
/// states.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Questions to A, where the revoke is made.
    AtA,
    /// Questions to B, with a transaction that overtakes the transaction of the revoke.
    AtBOvertaken,
    /// Questions to B, while B crashes and its database fails over.
    AtBFailing,
}

pub(super) struct Freshness {
    pub(super) safe: Safeguards,
    pub(super) scope: Scope,
}

impl Model for Freshness {
    type State = State;

    fn starts(&self) -> Vec<State> {
        let mut forgetful = State::new();
        (forgetful.a.remembered, forgetful.b.remembered) = (None, None);
        vec![State::new(), forgetful]
    }

    fn step(&self, state: &State, run: &mut Run<State>) {
        if state.now < END {
            run.with(state, State::tick);
        }
        self.step_transactions(state, run);
        let at_b = self.scope != Scope::AtA;
        if at_b {
            self.step_database(state, run);
            self.step_feed(state, run);
        }
        self.step_questions(state, run, at_b);
        self.step_flights(state, run, at_b);
    }
}

impl Freshness {
    fn step_transactions(&self, state: &State, run: &mut Run<State>) {
        let own = self.safe.own_changes;
        match state.revoke {
            Revoke::Idle => run.with(state, |next| {
                next.numbers += 1;
                next.revoke = Revoke::Begun(next.numbers);
            }),
            Revoke::Begun(number) => {
                run.with(state, |next| next.revoke = Revoke::Committed(number));
            }
            Revoke::Committed(number) => run.with(state, |next| {
                if own {
                    next.a.remembered = None;
                    next.a.generation += 1;
                }
                next.revoke = Revoke::Acknowledged(number, next.now);
            }),
            Revoke::Acknowledged(..) => {}
        }
        if state.other == Other::Idle && self.scope == Scope::AtBOvertaken {
            run.with(state, |next| {
                next.numbers += 1;
                next.other = Other::Committed(next.numbers);
            });
        }
    }

    fn step_database(&self, state: &State, run: &mut Run<State>) {
        let failing = self.scope == Scope::AtBFailing;
        if state.failed_over.is_none() && failing {
            // B's database keeps its state, and later changes at A are made in the new database.
            run.with(state, |next| next.failed_over = Some(next.is_live(true)));
        }
        if !state.crashed && failing {
            run.with(state, |next| {
                next.crashed = true;
                next.b = Replica {
                    cursor: next.b.cursor,
                    ..Replica::default()
                };
                // After a restart, B starts to poll at the end of the change log.
                next.b.cursor = next.history(next.b.cursor, ALL).0;
            });
        }
        // Only the primary can commit a heartbeat.
        if state.failed_over.is_none() {
            run.with(state, |next| next.b.beat = Some(next.now));
        }
    }

    fn step_feed(&self, state: &State, run: &mut Run<State>) {
        let safe = self.safe;
        match state.b.feed {
            None => run.with(state, |next| {
                next.b.feed = Some(Feed {
                    started: next.now,
                    saw: None,
                })
            }),
            Some(feed) => {
                // A poll may fail at any time.
                run.with(state, |next| next.b.feed = None);
                match feed.saw {
                    None => run.with(state, |next| {
                        let saw = next.history(next.b.cursor, safe);
                        next.b.feed = Some(Feed {
                            saw: Some(saw),
                            ..feed
                        });
                    }),
                    Some((cursor, revoked)) => run.with(state, |next| {
                        let started = if safe.read_start {
                            feed.started
                        } else {
                            next.now
                        };
                        let b = &mut next.b;
                        if revoked && !b.applied {
                            b.remembered = None;
                            b.generation += 1;
                            b.applied = true;
                        }
                        b.cursor = cursor;
                        b.read = b.read.max(Some(started));
                        b.feed = None;
                    }),
                }
            }
        }
    }

    fn step_questions(&self, state: &State, run: &mut Run<State>, at_b: bool) {
        let safe = self.safe;
        let replica = if at_b { &state.b } else { &state.a };
        let acknowledged = matches!(state.revoke, Revoke::Acknowledged(..));
        // Both replicas share lookups in the same way, so questions at the same time are explored
        // only at A.
        for slot in 0..if at_b { 1 } else { 2 } {
            let Some(question) = replica.questions[slot] else {
                // The second question arrives only while the first one is being answered.
                if slot == 1 && replica.questions[0].is_none() {
                    continue;
                }
                for min in [false, true] {
                    if min && !(acknowledged && at_b) {
                        continue;
                    }
                    run.with(state, |next| {
                        let arrived = Question {
                            arrived: next.now,
                            min,
                            flight: None,
                        };
                        side(next, at_b).questions[slot] = Some(arrived);
                    });
                }
                continue;
            };
            if question.flight.is_some() {
                continue;
            }
            let leased = !at_b || !safe.lease || covers(replica, replica.read, state.now, safe);
            let reflected = !question.min || replica.applied;
            if let Some(live) = replica.remembered.filter(|_| leased && reflected) {
                run.check(answer(state, question, live, at_b));
                run.with(state, |next| side(next, at_b).questions[slot] = None);
            } else {
                self.board(state, run, (slot, question), (leased, at_b));
            }
        }
    }

    /// The question joins a lookup in progress, or starts one.
    fn board(
        &self,
        state: &State,
        run: &mut Run<State>,
        (slot, question): (usize, Question),
        (leased, at_b): (bool, bool),
    ) {
        let replica = if at_b { &state.b } else { &state.a };
        let newest = (0..2).find(|at| replica.flights[*at].is_some_and(|flight| flight.newest));
        if let Some(at) = newest {
            let flight = replica.flights[at].unwrap();
            let fresh = flight.generation == replica.generation;
            if (leased && !question.min && fresh) || !self.safe.flights {
                run.with(state, |next| {
                    let joined = Question {
                        flight: Some(at as u8),
                        ..question
                    };
                    side(next, at_b).questions[slot] = Some(joined);
                });
                return;
            }
        }
        let slots = if at_b { 1 } else { 2 };
        let Some(free) = (0..slots).find(|at| replica.flights[*at].is_none()) else {
            return;
        };
        run.with(state, |next| {
            let (now, side) = (next.now, side(next, at_b));
            for flight in side.flights.iter_mut().flatten() {
                flight.newest = false;
            }
            let generation = side.generation;
            side.flights[free] = Some(Flight {
                started: now,
                generation,
                found: None,
                newest: true,
            });
            side.questions[slot] = Some(Question {
                flight: Some(free as u8),
                ..question
            });
        });
    }

    fn step_flights(&self, state: &State, run: &mut Run<State>, at_b: bool) {
        let safe = self.safe;
        let replica = if at_b { &state.b } else { &state.a };
        for at in 0..2 {
            let Some(flight) = replica.flights[at] else {
                continue;
            };
            let Some(live) = flight.found else {
                run.with(state, |next| {
                    let found = Some(next.is_live(at_b));
                    side(next, at_b).flights[at] = Some(Flight { found, ..flight });
                });
                continue;
            };
            let timely = !at_b
                || !safe.reading_age
                || covers(replica, Some(flight.started), state.now, safe);
            for question in replica
                .questions
                .iter()
                .flatten()
                .filter(|q| q.flight == Some(at as u8))
            {
                // If the lookup does not reflect `min_revision`, the question is refused.
                let reflects = !question.min || !live || !safe.reflection;
                if timely && reflects {
                    run.check(answer(state, *question, live, at_b));
                }
            }
            run.with(state, |next| {
                let side = side(next, at_b);
                if side.generation == flight.generation || !safe.generations {
                    side.remembered = Some(live);
                }
                side.flights[at] = None;
                for question in &mut side.questions {
                    if question.is_some_and(|question| question.flight == Some(at as u8)) {
                        *question = None;
                    }
                }
            });
        }
    }
}

fn answer(state: &State, question: Question, live: bool, at_b: bool) -> Option<&'static str> {
    live.then(|| fault(state, question, at_b)).flatten()
}
