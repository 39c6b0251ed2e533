//! What can happen next: the feed, the fill, the lease, a shared reading, a crash, a pause
//! (nothing but time passes) and a failover of the database.

use super::world::{
    ALL, END, Feed, Flight, Other, Question, Replica, Revoke, Safeguards, World, covers, fault,
    side,
};
use crate::explorer::{Model, Run};

/// What happens in a world. What is nothing to each other is explored apart, since together
/// it would only multiply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Questions at A, where the revoke is made.
    AtA,
    /// Questions at B, beside a transaction that overtakes the revoke's.
    AtBOvertaken,
    /// Questions at B, across a crash of it and a failover of its database.
    AtBFailing,
}

pub(super) struct Freshness {
    pub(super) safe: Safeguards,
    pub(super) scope: Scope,
}

impl Model for Freshness {
    type World = World;

    fn starts(&self) -> Vec<World> {
        let mut forgetful = World::new();
        (forgetful.a.remembered, forgetful.b.remembered) = (None, None);
        vec![World::new(), forgetful]
    }

    fn step(&self, world: &World, run: &mut Run<World>) {
        if world.now < END {
            run.with(world, World::tick);
        }
        self.step_transactions(world, run);
        let at_b = self.scope != Scope::AtA;
        if at_b {
            self.step_database(world, run);
            self.step_feed(world, run);
        }
        self.step_questions(world, run, at_b);
        self.step_flights(world, run, at_b);
    }
}

impl Freshness {
    fn step_transactions(&self, world: &World, run: &mut Run<World>) {
        let own = self.safe.own_changes;
        match world.revoke {
            Revoke::Idle => run.with(world, |next| {
                next.numbers += 1;
                next.revoke = Revoke::Begun(next.numbers);
            }),
            Revoke::Begun(number) => {
                run.with(world, |next| next.revoke = Revoke::Committed(number));
            }
            Revoke::Committed(number) => run.with(world, |next| {
                if own {
                    next.a.remembered = None;
                    next.a.generation += 1;
                }
                next.revoke = Revoke::Acknowledged(number, next.now);
            }),
            Revoke::Acknowledged(..) => {}
        }
        if world.other == Other::Idle && self.scope == Scope::AtBOvertaken {
            run.with(world, |next| {
                next.numbers += 1;
                next.other = Other::Committed(next.numbers);
            });
        }
    }

    fn step_database(&self, world: &World, run: &mut Run<World>) {
        let failing = self.scope == Scope::AtBFailing;
        if world.failed_over.is_none() && failing {
            // B's database keeps what it had; A's goes on elsewhere.
            run.with(world, |next| next.failed_over = Some(next.is_live(true)));
        }
        if !world.crashed && failing {
            run.with(world, |next| {
                next.crashed = true;
                next.b = Replica {
                    cursor: next.b.cursor,
                    ..Replica::default()
                };
                // It begins to read where the history ends.
                next.b.cursor = next.history(next.b.cursor, ALL).0;
            });
        }
        // Only the primary commits.
        if world.failed_over.is_none() {
            run.with(world, |next| next.b.beat = Some(next.now));
        }
    }

    fn step_feed(&self, world: &World, run: &mut Run<World>) {
        let safe = self.safe;
        match world.b.feed {
            None => run.with(world, |next| {
                next.b.feed = Some(Feed {
                    started: next.now,
                    saw: None,
                })
            }),
            Some(feed) => {
                // It may fail at any time.
                run.with(world, |next| next.b.feed = None);
                match feed.saw {
                    None => run.with(world, |next| {
                        let saw = next.history(next.b.cursor, safe);
                        next.b.feed = Some(Feed {
                            saw: Some(saw),
                            ..feed
                        });
                    }),
                    Some((cursor, revoked)) => run.with(world, |next| {
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

    fn step_questions(&self, world: &World, run: &mut Run<World>, at_b: bool) {
        let safe = self.safe;
        let replica = if at_b { &world.b } else { &world.a };
        let acknowledged = matches!(world.revoke, Revoke::Acknowledged(..));
        // A reading is shared the same way at both, so two at once are asked at A only.
        for slot in 0..if at_b { 1 } else { 2 } {
            let Some(question) = replica.questions[slot] else {
                // The second question only beside a first.
                if slot == 1 && replica.questions[0].is_none() {
                    continue;
                }
                for min in [false, true] {
                    if min && !(acknowledged && at_b) {
                        continue;
                    }
                    run.with(world, |next| {
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
            let leased = !at_b || !safe.lease || covers(replica, replica.read, world.now, safe);
            let reflected = !question.min || replica.applied;
            if let Some(live) = replica.remembered.filter(|_| leased && reflected) {
                run.check(answer(world, question, live, at_b));
                run.with(world, |next| side(next, at_b).questions[slot] = None);
            } else {
                self.board(world, run, (slot, question), (leased, at_b));
            }
        }
    }

    /// Joins a reading under way, or begins one.
    fn board(
        &self,
        world: &World,
        run: &mut Run<World>,
        (slot, question): (usize, Question),
        (leased, at_b): (bool, bool),
    ) {
        let replica = if at_b { &world.b } else { &world.a };
        let newest = (0..2).find(|at| replica.flights[*at].is_some_and(|flight| flight.newest));
        if let Some(at) = newest {
            let flight = replica.flights[at].unwrap();
            let fresh = flight.generation == replica.generation;
            if (leased && !question.min && fresh) || !self.safe.flights {
                run.with(world, |next| {
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
        run.with(world, |next| {
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

    fn step_flights(&self, world: &World, run: &mut Run<World>, at_b: bool) {
        let safe = self.safe;
        let replica = if at_b { &world.b } else { &world.a };
        for at in 0..2 {
            let Some(flight) = replica.flights[at] else {
                continue;
            };
            let Some(live) = flight.found else {
                run.with(world, |next| {
                    let found = Some(next.is_live(at_b));
                    side(next, at_b).flights[at] = Some(Flight { found, ..flight });
                });
                continue;
            };
            let timely = !at_b
                || !safe.reading_age
                || covers(replica, Some(flight.started), world.now, safe);
            for question in replica
                .questions
                .iter()
                .flatten()
                .filter(|q| q.flight == Some(at as u8))
            {
                // A reading that does not reflect what was asked for is refused.
                let reflects = !question.min || !live || !safe.reflection;
                if timely && reflects {
                    run.check(answer(world, *question, live, at_b));
                }
            }
            run.with(world, |next| {
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

fn answer(world: &World, question: Question, live: bool, at_b: bool) -> Option<&'static str> {
    live.then(|| fault(world, question, at_b)).flatten()
}
