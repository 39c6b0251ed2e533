//! A change of unknown outcome: a revoke whose COMMIT may take effect after its caller was told
//! that the deadline has passed. Once anybody was told that the token is revoked (by the change
//! itself, or by repeating it), no later answer here may say that it is live. There is no lease
//! in this model: on SQLite it always holds.

use crate::explorer::{Model, Run, assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
struct Safeguards {
    /// While the outcome is unknown, answers come from the store. That nothing is cached either
    /// is a second line: what was, would be evicted when the bar is lifted.
    bar: bool,
    /// The bar is there before COMMIT is sent.
    bar_first: bool,
    /// The bar stays beyond the deadline of the caller.
    bar_outlasts_caller: bool,
    /// "In progress" keeps the bar.
    in_progress_keeps: bool,
    /// Only the database that was sent the COMMIT is asked what became of it.
    same_origin: bool,
    /// Lifting the bar evicts.
    lift_evicts: bool,
    /// Lifting the bar refuses look-ups that were under way.
    lift_counts: bool,
}

const ALL: Safeguards = Safeguards {
    bar: true,
    bar_first: true,
    bar_outlasts_caller: true,
    in_progress_keeps: true,
    same_origin: true,
    lift_evicts: true,
    lift_counts: true,
};

/// The transaction, as the database has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Transaction {
    Idle,
    /// COMMIT was sent; it may wait for a disk or a standby for any time.
    Sent,
    Committed,
    RolledBack,
}

/// The call that makes the change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Call {
    Idle,
    Waiting,
    /// Its caller was told DEADLINE, and what became of COMMIT is not known.
    InDoubt,
    /// It is known what became of it.
    Settled,
}

/// What the database says about the transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Status {
    InProgress,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Lookup {
    /// Whether something was evicted since it began.
    overtaken: bool,
    found: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Question {
    /// Whether the revoke was acknowledged before it arrived.
    late: bool,
    looks: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    transaction: Transaction,
    call: Call,
    barred: bool,
    acknowledged: bool,
    cached: Option<bool>,
    status: Option<Status>,
    lookup: Option<Lookup>,
    question: Option<Question>,
}

impl World {
    fn is_live(&self) -> bool {
        self.transaction != Transaction::Committed
    }

    fn lift(&mut self, safe: Safeguards) {
        self.barred = false;
        if safe.lift_evicts {
            self.cached = None;
        }
        if let Some(lookup) = &mut self.lookup {
            lookup.overtaken |= safe.lift_counts;
        }
    }
}

impl Model for Safeguards {
    type World = World;

    fn starts(&self) -> Vec<World> {
        let start = |cached| World {
            transaction: Transaction::Idle,
            call: Call::Idle,
            barred: false,
            acknowledged: false,
            cached,
            status: None,
            lookup: None,
            question: None,
        };
        vec![start(None), start(Some(true))]
    }

    fn step(&self, world: &World, run: &mut Run<World>) {
        self.step_transaction(world, run);
        self.step_call(world, run);
        self.step_doubt(world, run);
        self.step_question(world, run);
        self.step_lookup(world, run);
    }
}

impl Safeguards {
    fn is_barred(&self, world: &World) -> bool {
        world.barred && self.bar
    }

    fn step_transaction(&self, world: &World, run: &mut Run<World>) {
        if world.transaction == Transaction::Sent {
            run.with(world, |next| next.transaction = Transaction::Committed);
            run.with(world, |next| next.transaction = Transaction::RolledBack);
        }
        // Whoever repeats a revoke that is visible is told that the token is revoked.
        if !world.is_live() && !world.acknowledged {
            run.with(world, |next| next.acknowledged = true);
        }
    }

    fn step_call(&self, world: &World, run: &mut Run<World>) {
        match (world.call, world.transaction) {
            (Call::Idle, Transaction::Idle) => {
                run.with(world, |next| {
                    next.barred = self.bar_first;
                    (next.call, next.transaction) = (Call::Waiting, Transaction::Sent);
                });
            }
            (Call::Waiting, Transaction::Committed) => run.with(world, |next| {
                next.lift(*self);
                (next.call, next.acknowledged) = (Call::Settled, true);
            }),
            (Call::Waiting, Transaction::RolledBack) => run.with(world, |next| {
                next.lift(*self);
                next.call = Call::Settled;
            }),
            _ => {}
        }
        if world.call == Call::Waiting {
            run.with(world, |next| {
                next.call = Call::InDoubt;
                next.barred = true;
                if !self.bar_outlasts_caller {
                    next.lift(*self);
                }
            });
        }
    }

    /// In doubt the database is asked what became of the transaction.
    fn step_doubt(&self, world: &World, run: &mut Run<World>) {
        if world.call != Call::InDoubt || !world.barred {
            return;
        }
        let Some(status) = world.status else {
            let own = match world.transaction {
                Transaction::Sent => Status::InProgress,
                _ => Status::Over,
            };
            run.with(world, |next| next.status = Some(own));
            // Another database does not know this transaction, or knows another by its id.
            if !self.same_origin {
                run.with(world, |next| next.status = Some(Status::Over));
            }
            return;
        };
        run.with(world, |next| {
            next.status = None;
            if status == Status::Over || !self.in_progress_keeps {
                next.lift(*self);
                next.call = Call::Settled;
            }
        });
    }

    fn step_question(&self, world: &World, run: &mut Run<World>) {
        let Some(question) = world.question else {
            run.with(world, |next| {
                next.question = Some(Question {
                    late: next.acknowledged,
                    looks: false,
                });
            });
            return;
        };
        if question.looks {
            return;
        }
        if let Some(live) = world.cached.filter(|_| !self.is_barred(world)) {
            run.check(fault(question, live));
            run.with(world, |next| next.question = None);
        } else if world.lookup.is_none() {
            run.with(world, |next| {
                next.lookup = Some(Lookup {
                    overtaken: false,
                    found: None,
                });
                next.question = Some(Question {
                    looks: true,
                    ..question
                });
            });
        }
    }

    fn step_lookup(&self, world: &World, run: &mut Run<World>) {
        let Some(lookup) = world.lookup else { return };
        let Some(live) = lookup.found else {
            run.with(world, |next| {
                let found = Some(next.is_live());
                next.lookup = Some(Lookup { found, ..lookup });
            });
            return;
        };
        if let Some(question) = world.question.filter(|question| question.looks) {
            run.check(fault(question, live));
        }
        run.with(world, |next| {
            if !lookup.overtaken && !self.is_barred(next) {
                next.cached = Some(live);
            }
            next.lookup = None;
            next.question = next.question.filter(|question| !question.looks);
        });
        // Whoever asked may be gone, and the look-up goes on.
        if world.question.is_some_and(|question| question.looks) {
            run.with(world, |next| next.question = None);
        }
    }
}

fn fault(question: Question, live: bool) -> Option<&'static str> {
    (live && question.late).then_some("live after somebody was told that it is revoked")
}

#[test]
fn with_all_safeguards_no_unknown_outcome_shows_a_stale_answer() {
    assert_sound("unknown outcome", explore(&ALL), 200);
}

#[test]
fn without_any_one_safeguard_some_unknown_outcome_does() {
    assert_needed("bar", explore(&Safeguards { bar: false, ..ALL }));
    assert_needed(
        "bar_first",
        explore(&Safeguards {
            bar_first: false,
            ..ALL
        }),
    );
    assert_needed(
        "bar_outlasts_caller",
        explore(&Safeguards {
            bar_outlasts_caller: false,
            ..ALL
        }),
    );
    assert_needed(
        "in_progress_keeps",
        explore(&Safeguards {
            in_progress_keeps: false,
            ..ALL
        }),
    );
    assert_needed(
        "same_origin",
        explore(&Safeguards {
            same_origin: false,
            ..ALL
        }),
    );
    assert_needed(
        "lift_evicts",
        explore(&Safeguards {
            lift_evicts: false,
            ..ALL
        }),
    );
    assert_needed(
        "lift_counts",
        explore(&Safeguards {
            lift_counts: false,
            ..ALL
        }),
    );
}
