//! The freshness argument as a small model, explored to the last state: two replicas, one
//! token, one revoke at A, and at B every order of the feed, the fill, the lease, a shared
//! reading, a crash, a pause (nothing but time passes) and a failover of the database.
//! With all safeguards no order shows a stale answer; without any one of them some order does.
#![allow(
    clippy::pedantic,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a model is read as a whole, and may fail loudly"
)]

use std::collections::{HashSet, VecDeque};

/// The freshness bound, in ticks.
const BOUND: u8 = 1;
/// How long the world lasts: enough for a revoke, the bound to pass, and a question.
const END: u8 = 3;

#[derive(Clone, Copy)]
struct Safeguards {
    /// What is remembered is answered only under a lease.
    lease: bool,
    /// The lease counts from the last heartbeat too, not only from the last reading.
    heartbeat: bool,
    /// The reading of the history counts from its start.
    read_start: bool,
    /// A late fill is compared with what was thrown out meanwhile.
    generations: bool,
    /// A reading under way is shared only by those for whom it began late enough.
    flights: bool,
    /// A reading that took too long is not answered.
    reading_age: bool,
    /// A change of one's own is applied before it is acknowledged.
    own_changes: bool,
    /// The history is read by transaction, not by number.
    commit_order: bool,
    /// A reading is answered only if it reflects the revision that was asked for.
    reflection: bool,
}

const ALL: Safeguards = Safeguards {
    lease: true,
    heartbeat: true,
    read_start: true,
    generations: true,
    flights: true,
    reading_age: true,
    own_changes: true,
    commit_order: true,
    reflection: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Revoke {
    Idle,
    /// Its transaction has begun, with this number.
    Begun(u8),
    Committed(u8),
    Acknowledged(u8, u8),
}

impl Revoke {
    fn number(self) -> Option<u8> {
        match self {
            Self::Idle => None,
            Self::Begun(number) | Self::Committed(number) | Self::Acknowledged(number, _) => {
                Some(number)
            }
        }
    }

    fn is_committed(self) -> bool {
        matches!(self, Self::Committed(_) | Self::Acknowledged(..))
    }
}

/// A change of something else, whose transaction may overtake the revoke's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Other {
    Idle,
    Committed(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Feed {
    started: u8,
    /// What the statement saw: where to go on, the highest number, and the revoke.
    saw: Option<(u8, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flight {
    started: u8,
    generation: u8,
    /// Whether the token was live.
    found: Option<bool>,
    /// Whether it may still be joined, and filled from.
    newest: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Question {
    arrived: u8,
    /// Whether it must reflect the revoke, which its caller saw acknowledged.
    min: bool,
    flight: Option<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Replica {
    /// Whether the token is remembered as live or dead.
    remembered: Option<bool>,
    generation: u8,
    read: Option<u8>,
    beat: Option<u8>,
    cursor: u8,
    /// Whether the revoke is applied.
    applied: bool,
    feed: Option<Feed>,
    flights: [Option<Flight>; 2],
    questions: [Option<Question>; 2],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    now: u8,
    revoke: Revoke,
    other: Other,
    numbers: u8,
    /// B's database was the primary and is not any more: it keeps what it had.
    failed_over: Option<bool>,
    crashed: bool,
    a: Replica,
    b: Replica,
}

impl World {
    fn new() -> Self {
        let fresh = Replica {
            read: Some(0),
            beat: Some(0),
            cursor: 1,
            ..Replica::default()
        };
        Self {
            now: 0,
            revoke: Revoke::Idle,
            other: Other::Idle,
            numbers: 0,
            failed_over: None,
            crashed: false,
            a: Replica {
                remembered: Some(true),
                ..fresh.clone()
            },
            b: Replica {
                remembered: Some(true),
                ..fresh
            },
        }
    }

    /// What is past the bound is past it for good, so that many states are one.
    fn tick(&mut self) {
        self.now += 1;
        let (now, b) = (self.now, &mut self.b);
        let past = |at: u8| now - at > BOUND;
        b.read = b.read.filter(|at| !past(*at));
        b.beat = b.beat.filter(|at| !past(*at));
        let cut = |at: &mut u8| *at = (*at).max(now.saturating_sub(BOUND + 1));
        if let Some(feed) = &mut b.feed {
            cut(&mut feed.started);
        }
        for side in [&mut self.a, &mut self.b] {
            side.flights
                .iter_mut()
                .flatten()
                .for_each(|flight| cut(&mut flight.started));
        }
    }

    /// Whether the token is live in the database that a replica reads.
    fn is_live(&self, at_b: bool) -> bool {
        match (at_b, self.failed_over) {
            (true, Some(was_live)) => was_live,
            _ => !self.revoke.is_committed(),
        }
    }

    /// What a statement that reads the history sees: where to go on, and whether the revoke is
    /// among the changes since.
    fn history(&self, cursor: u8, safe: Safeguards) -> (u8, bool) {
        let visible =
            !self.is_live(true) && self.revoke.number().is_some_and(|number| number >= cursor);
        let next = if safe.commit_order {
            // The oldest transaction still at work, or the next one.
            match self.revoke {
                Revoke::Begun(number) => number,
                _ => self.numbers + 1,
            }
        } else {
            let other = match self.other {
                Other::Committed(number) => number,
                Other::Idle => 0,
            };
            let revoke = if visible {
                self.revoke.number().unwrap_or(0)
            } else {
                0
            };
            cursor.max(other.max(revoke) + 1)
        };
        (next.max(cursor), visible)
    }
}

fn covers(replica: &Replica, read: Option<u8>, now: u8, safe: Safeguards) -> bool {
    let Some(read) = read else { return false };
    let since = if safe.heartbeat {
        replica.beat.map(|beat| beat.min(read))
    } else {
        Some(read)
    };
    since.is_some_and(|since| now - since <= BOUND)
}

/// What is wrong with an answer that the token is live, if anything is.
fn fault(world: &World, question: Question, at_b: bool) -> Option<&'static str> {
    let Revoke::Acknowledged(_, at) = world.revoke else {
        return None;
    };
    if question.min {
        return Some("live in spite of min_revision");
    }
    let bound = if at_b { BOUND } else { 0 };
    // A question that arrives in the tick of the acknowledgement may have come before it.
    (question.arrived > at + bound).then_some("live past the bound")
}

/// What happens in a world. What is nothing to each other is explored apart, since together
/// it would only multiply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Questions at A, where the revoke is made.
    AtA,
    /// Questions at B, beside a transaction that overtakes the revoke's.
    AtBOvertaken,
    /// Questions at B, across a crash of it and a failover of its database.
    AtBFailing,
}

struct Explorer {
    safe: Safeguards,
    scope: Scope,
    seen: HashSet<World>,
    open: VecDeque<World>,
    found: Option<&'static str>,
}

impl Explorer {
    fn explore(safe: Safeguards, scope: Scope) -> (usize, Option<&'static str>) {
        let (seen, open) = (HashSet::new(), VecDeque::new());
        let mut explorer = Self {
            safe,
            scope,
            seen,
            open,
            found: None,
        };
        explorer.reach(World::new());
        let mut forgetful = World::new();
        (forgetful.a.remembered, forgetful.b.remembered) = (None, None);
        explorer.reach(forgetful);
        while let Some(world) = explorer.open.pop_front() {
            explorer.step(&world);
            if explorer.found.is_some() {
                break;
            }
        }
        (explorer.seen.len(), explorer.found)
    }

    fn reach(&mut self, world: World) {
        if self.seen.insert(world.clone()) {
            self.open.push_back(world);
        }
    }

    fn with(&mut self, world: &World, change: impl FnOnce(&mut World)) {
        let mut next = world.clone();
        change(&mut next);
        self.reach(next);
    }

    fn step(&mut self, world: &World) {
        if world.now < END {
            self.with(world, World::tick);
        }
        self.step_transactions(world);
        let at_b = self.scope != Scope::AtA;
        if at_b {
            self.step_database(world);
            self.step_feed(world);
        }
        self.step_questions(world, at_b);
        self.step_flights(world, at_b);
    }

    fn step_transactions(&mut self, world: &World) {
        let own = self.safe.own_changes;
        match world.revoke {
            Revoke::Idle => self.with(world, |next| {
                next.numbers += 1;
                next.revoke = Revoke::Begun(next.numbers);
            }),
            Revoke::Begun(number) => {
                self.with(world, |next| next.revoke = Revoke::Committed(number));
            }
            Revoke::Committed(number) => self.with(world, |next| {
                if own {
                    next.a.remembered = None;
                    next.a.generation += 1;
                }
                next.revoke = Revoke::Acknowledged(number, next.now);
            }),
            Revoke::Acknowledged(..) => {}
        }
        if world.other == Other::Idle && self.scope == Scope::AtBOvertaken {
            self.with(world, |next| {
                next.numbers += 1;
                next.other = Other::Committed(next.numbers);
            });
        }
    }

    fn step_database(&mut self, world: &World) {
        let failing = self.scope == Scope::AtBFailing;
        if world.failed_over.is_none() && failing {
            // B's database keeps what it had; A's goes on elsewhere.
            self.with(world, |next| next.failed_over = Some(next.is_live(true)));
        }
        if !world.crashed && failing {
            self.with(world, |next| {
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
            self.with(world, |next| next.b.beat = Some(next.now));
        }
    }

    fn step_feed(&mut self, world: &World) {
        let safe = self.safe;
        match world.b.feed {
            None => self.with(world, |next| {
                next.b.feed = Some(Feed {
                    started: next.now,
                    saw: None,
                })
            }),
            Some(feed) => {
                // It may fail at any time.
                self.with(world, |next| next.b.feed = None);
                match feed.saw {
                    None => self.with(world, |next| {
                        let saw = next.history(next.b.cursor, safe);
                        next.b.feed = Some(Feed {
                            saw: Some(saw),
                            ..feed
                        });
                    }),
                    Some((cursor, revoked)) => self.with(world, |next| {
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

    fn step_questions(&mut self, world: &World, at_b: bool) {
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
                    self.with(world, |next| {
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
                self.answer(world, question, live, at_b);
                self.with(world, |next| side(next, at_b).questions[slot] = None);
            } else {
                self.board(world, (slot, question), leased, at_b);
            }
        }
    }

    /// Joins a reading under way, or begins one.
    fn board(
        &mut self,
        world: &World,
        (slot, question): (usize, Question),
        leased: bool,
        at_b: bool,
    ) {
        let replica = if at_b { &world.b } else { &world.a };
        let newest = (0..2).find(|at| replica.flights[*at].is_some_and(|flight| flight.newest));
        if let Some(at) = newest {
            let flight = replica.flights[at].unwrap();
            let fresh = flight.generation == replica.generation;
            if (leased && !question.min && fresh) || !self.safe.flights {
                self.with(world, |next| {
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
        self.with(world, |next| {
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

    fn step_flights(&mut self, world: &World, at_b: bool) {
        let safe = self.safe;
        let replica = if at_b { &world.b } else { &world.a };
        for at in 0..2 {
            let Some(flight) = replica.flights[at] else {
                continue;
            };
            let Some(live) = flight.found else {
                self.with(world, |next| {
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
                    self.answer(world, *question, live, at_b);
                }
            }
            self.with(world, |next| {
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

    fn answer(&mut self, world: &World, question: Question, live: bool, at_b: bool) {
        if live && self.found.is_none() {
            self.found = fault(world, question, at_b);
        }
    }
}

fn side(world: &mut World, at_b: bool) -> &mut Replica {
    if at_b { &mut world.b } else { &mut world.a }
}

/// All of it: how many states there are, and what goes wrong in some.
fn explore(safe: Safeguards) -> (usize, Option<&'static str>) {
    let mut states = 0;
    for scope in [Scope::AtA, Scope::AtBOvertaken, Scope::AtBFailing] {
        let (count, found) = Explorer::explore(safe, scope);
        states += count;
        if found.is_some() {
            return (states, found);
        }
    }
    (states, None)
}

#[test]
fn with_all_safeguards_no_order_of_events_shows_a_stale_answer() {
    let (states, found) = explore(ALL);
    println!("{states} states");
    assert_eq!(found, None);
    assert!(
        states > 100_000,
        "the model is too small to say anything: {states} states"
    );
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
        let (states, found) = explore(safe);
        println!("without {name}: {found:?} after {states} states");
        assert!(found.is_some(), "without {name} nothing goes wrong");
    }
}
