//! Models a change with an unknown outcome: a revoke whose COMMIT may take effect after its caller
//! got DEADLINE. Once any caller was told that the token is revoked (by the change itself or by a
//! repetition), no later answer of this replica may be "live". The model has no lease, because on
//! SQLite the lease always holds.

use crate::explorer::{Model, Run, assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
struct Safeguards {
    /// While the outcome is unknown, answers come from the store and nothing is cached. Not caching
    /// is only a precaution, because lifting the bar would evict such an entry.
    bar: bool,
    /// The token is barred from the cache before COMMIT is sent, not after it.
    bar_first: bool,
    /// The token stays barred after the deadline of the caller.
    bar_outlasts_caller: bool,
    /// The status "in progress" does not lift the bar.
    in_progress_keeps: bool,
    /// Only the database that received the COMMIT is asked for the outcome.
    same_origin: bool,
    /// Lifting the bar evicts the token.
    lift_evicts: bool,
    /// Lifting the bar invalidates lookups that are in progress.
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

/// The state of the transaction in the database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Transaction {
    Idle,
    /// COMMIT was sent. It may have to wait for a disk or a standby, with no time limit.
    Sent,
    Committed,
    RolledBack,
}

/// The call that makes the change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Call {
    Idle,
    Waiting,
    /// The caller got DEADLINE, and the outcome of COMMIT is unknown.
    InDoubt,
    /// The outcome of the transaction is known.
    Settled,
}

/// The status of the transaction that the database reports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Status {
    InProgress,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Lookup {
    /// Whether the token was evicted after the lookup started.
    overtaken: bool,
    found: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Question {
    /// Whether the revoke was acknowledged before the question arrived.
    late: bool,
    looks: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    transaction: Transaction,
    call: Call,
    barred: bool,
    acknowledged: bool,
    cached: Option<bool>,
    status: Option<Status>,
    lookup: Option<Lookup>,
    question: Option<Question>,
}

impl State {
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
    type State = State;

    fn starts(&self) -> Vec<State> {
        let start = |cached| State {
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

    fn step(&self, state: &State, run: &mut Run<State>) {
        self.step_transaction(state, run);
        self.step_call(state, run);
        self.step_doubt(state, run);
        self.step_question(state, run);
        self.step_lookup(state, run);
    }
}

impl Safeguards {
    fn is_barred(&self, state: &State) -> bool {
        state.barred && self.bar
    }

    fn step_transaction(&self, state: &State, run: &mut Run<State>) {
        if state.transaction == Transaction::Sent {
            run.with(state, |next| next.transaction = Transaction::Committed);
            run.with(state, |next| next.transaction = Transaction::RolledBack);
        }
        // The revoke is visible, so a caller that repeats it is told that the token is revoked.
        if !state.is_live() && !state.acknowledged {
            run.with(state, |next| next.acknowledged = true);
        }
    }

    fn step_call(&self, state: &State, run: &mut Run<State>) {
        match (state.call, state.transaction) {
            (Call::Idle, Transaction::Idle) => {
                run.with(state, |next| {
                    next.barred = self.bar_first;
                    (next.call, next.transaction) = (Call::Waiting, Transaction::Sent);
                });
            }
            (Call::Waiting, Transaction::Committed) => run.with(state, |next| {
                next.lift(*self);
                (next.call, next.acknowledged) = (Call::Settled, true);
            }),
            (Call::Waiting, Transaction::RolledBack) => run.with(state, |next| {
                next.lift(*self);
                next.call = Call::Settled;
            }),
            _ => {}
        }
        if state.call == Call::Waiting {
            run.with(state, |next| {
                next.call = Call::InDoubt;
                next.barred = true;
                if !self.bar_outlasts_caller {
                    next.lift(*self);
                }
            });
        }
    }

    /// Asks the database for the status of the transaction, as long as the outcome is unknown.
    fn step_doubt(&self, state: &State, run: &mut Run<State>) {
        if state.call != Call::InDoubt || !state.barred {
            return;
        }
        let Some(status) = state.status else {
            let own = match state.transaction {
                Transaction::Sent => Status::InProgress,
                _ => Status::Over,
            };
            run.with(state, |next| next.status = Some(own));
            // Another database does not know this transaction, or knows another one by this id.
            if !self.same_origin {
                run.with(state, |next| next.status = Some(Status::Over));
            }
            return;
        };
        run.with(state, |next| {
            next.status = None;
            if status == Status::Over || !self.in_progress_keeps {
                next.lift(*self);
                next.call = Call::Settled;
            }
        });
    }

    fn step_question(&self, state: &State, run: &mut Run<State>) {
        let Some(question) = state.question else {
            run.with(state, |next| {
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
        if let Some(live) = state.cached.filter(|_| !self.is_barred(state)) {
            run.check(fault(question, live));
            run.with(state, |next| next.question = None);
        } else if state.lookup.is_none() {
            run.with(state, |next| {
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

    fn step_lookup(&self, state: &State, run: &mut Run<State>) {
        let Some(lookup) = state.lookup else { return };
        let Some(live) = lookup.found else {
            run.with(state, |next| {
                let found = Some(next.is_live());
                next.lookup = Some(Lookup { found, ..lookup });
            });
            return;
        };
        if let Some(question) = state.question.filter(|question| question.looks) {
            run.check(fault(question, live));
        }
        run.with(state, |next| {
            if !lookup.overtaken && !self.is_barred(next) {
                next.cached = Some(live);
            }
            next.lookup = None;
            next.question = next.question.filter(|question| !question.looks);
        });
        // The caller may disconnect at this point; the lookup continues.
        if state.question.is_some_and(|question| question.looks) {
            run.with(state, |next| next.question = None);
        }
    }
}

fn fault(question: Question, live: bool) -> Option<&'static str> {
    (live && question.late).then_some("live after a caller was told that it is revoked")
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
