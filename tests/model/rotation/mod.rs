//! Models a rotation until first use. The first answer that the new secret is active ends the
//! former one: at once on the replica that answered, and within the bound on the other. Two
//! replicas share one store. A poll is a single step here, because other models examine polls in
//! detail. A tick is as long as the bound.

use crate::explorer::{Model, Run, assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
struct Safeguards {
    /// The first use is recorded before the question is answered.
    recorded_first: bool,
    /// Facts of an unused secret are never answered as active.
    unused_is_recorded: bool,
    /// The verdict is evaluated from facts that were read after the first use was recorded.
    read_after_record: bool,
    /// The replica that recorded the first use evicts the token before it answers.
    own_change: bool,
    /// Recording writes a row of the change log.
    logged: bool,
    /// Eviction invalidates lookups of the former secret that are in progress.
    generations: bool,
    /// Cached facts are used only under a lease.
    lease: bool,
}

const ALL: Safeguards = Safeguards {
    recorded_first: true,
    unused_is_recorded: true,
    read_after_record: true,
    own_change: true,
    logged: true,
    generations: true,
    lease: true,
};

/// A question about the new secret that is being answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum FirstUse {
    Arrived,
    /// The secret is unused, according to the facts that were found.
    Unused,
    /// The first use is recorded, and the facts must be read again.
    Recorded,
}

/// A lookup of the former secret that has not finished.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Query {
    /// Whether the question arrived in this tick.
    fresh: bool,
    live: bool,
    /// Whether the secret was evicted after the lookup started.
    overtaken: bool,
    /// The fault that the answer "active" would cause, if any.
    fault: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Replica {
    /// The cached state of the former secret: live, ended or absent.
    former: Option<bool>,
    /// The cached state of the new secret: used, unused or absent.
    new: Option<bool>,
    /// Whether the change log was polled in this tick.
    read: bool,
    first_use: Option<FirstUse>,
    queries: Option<Query>,
    /// Whether this replica has answered that the new secret is active.
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Verdict {
    Never,
    Within,
    /// The answer was given longer ago than the bound.
    Past,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    /// Whether the store has recorded the first use, which ends the former secret.
    used: bool,
    /// Whether the first use is in the change log.
    logged: bool,
    /// Whether the whole token was revoked at A, which answers "inactive" from then on.
    revoked: bool,
    /// Whether and when any caller was told that the new secret is active.
    verdicts: Verdict,
    sides: [Replica; 2],
}

impl State {
    fn evict(&mut self, at: usize) {
        let side = &mut self.sides[at];
        (side.former, side.new) = (None, None);
        if let Some(queries) = &mut side.queries {
            queries.overtaken = true;
        }
    }

    /// Returns the fault that the answer "active" to a question about the former secret that
    /// arrives now would cause, if any.
    fn fault(&self, at: usize) -> Option<&'static str> {
        if self.sides[at].answered {
            return Some("the former secret is active where the new one was used");
        }
        (self.verdicts == Verdict::Past).then_some("the former secret is active past the bound")
    }
}

impl Model for Safeguards {
    type State = State;

    fn starts(&self) -> Vec<State> {
        let side = |former, new| Replica {
            former,
            new,
            read: true,
            ..Replica::default()
        };
        let start = |a, b| State {
            used: false,
            logged: false,
            revoked: false,
            verdicts: Verdict::Never,
            sides: [a, b],
        };
        let warm = || side(Some(true), Some(false));
        vec![start(warm(), warm()), start(side(None, None), warm())]
    }

    fn step(&self, state: &State, run: &mut Run<State>) {
        run.with(state, |next| {
            if next.verdicts == Verdict::Within {
                next.verdicts = Verdict::Past;
            }
            for side in &mut next.sides {
                side.read = false;
                if let Some(queries) = &mut side.queries {
                    queries.fresh = false;
                }
            }
        });
        // The token is revoked at A, which applies its own change when it commits.
        if !state.revoked {
            run.with(state, |next| {
                next.revoked = true;
                next.evict(0);
            });
        }
        for side in 0..2 {
            self.step_feed(state, run, side);
            self.step_first_use(state, run, side);
            self.step_former(state, run, side);
        }
    }
}

impl Safeguards {
    fn step_feed(&self, state: &State, run: &mut Run<State>, side: usize) {
        run.with(state, |next| {
            if next.logged || next.revoked {
                next.evict(side);
            }
            next.sides[side].read = true;
        });
    }

    /// Takes the steps of a question about the new secret.
    fn step_first_use(&self, state: &State, run: &mut Run<State>, at: usize) {
        let side = &state.sides[at];
        match side.first_use {
            // Questions about the new secret go only to A; at B, the model watches the former
            // secret.
            None if at == 0 && !side.answered => run.with(state, |next| {
                next.sides[at].first_use = Some(FirstUse::Arrived);
            }),
            None => {}
            Some(FirstUse::Arrived) => {
                let cached = side.new.filter(|_| side.read || !self.lease);
                let used = cached.unwrap_or(state.used);
                if cached.is_none() && state.revoked {
                    // The facts say that the secret is inactive, so this is the answer.
                    run.with(state, |next| next.sides[at].first_use = None);
                } else if used || !self.unused_is_recorded {
                    self.answer_active(state, run, at);
                } else {
                    run.with(state, |next| {
                        next.sides[at].first_use = Some(FirstUse::Unused);
                    });
                }
            }
            Some(FirstUse::Unused) if !self.recorded_first => self.answer_active(state, run, at),
            Some(FirstUse::Unused) => self.record(state, run, at),
            Some(FirstUse::Recorded) if state.revoked && self.read_after_record => {
                run.with(state, |next| next.sides[at].first_use = None);
            }
            Some(FirstUse::Recorded) => self.answer_active(state, run, at),
        }
    }

    /// Records the first use, which ends the former secret.
    fn record(&self, state: &State, run: &mut Run<State>, at: usize) {
        if state.revoked {
            // The first use cannot be recorded. The next read of the facts shows why.
            run.with(state, |next| {
                next.sides[at].first_use = Some(FirstUse::Recorded);
            });
            return;
        }
        run.with(state, |next| {
            next.used = true;
            next.logged = self.logged;
            if self.own_change {
                next.evict(at);
            }
            next.sides[at].first_use = Some(FirstUse::Recorded);
        });
    }

    /// Answers that the new secret is active.
    fn answer_active(&self, state: &State, run: &mut Run<State>, at: usize) {
        run.check((!state.used).then_some("active, but the first use is not recorded"));
        run.check((state.revoked && at == 0).then_some("active although it was revoked here"));
        run.with(state, |next| {
            if next.verdicts == Verdict::Never {
                next.verdicts = Verdict::Within;
            }
            let side = &mut next.sides[at];
            (side.first_use, side.answered) = (None, true);
        });
    }

    /// Takes the steps of a question about the former secret.
    fn step_former(&self, state: &State, run: &mut Run<State>, at: usize) {
        let side = &state.sides[at];
        let leased = side.read || !self.lease;
        if side.former == Some(true) && leased {
            run.check(state.fault(at));
        }
        let Some(queries) = side.queries else {
            run.with(state, |next| {
                next.sides[at].queries = Some(Query {
                    fresh: true,
                    live: !next.used && !next.revoked,
                    overtaken: false,
                    fault: next.fault(at),
                });
            });
            return;
        };
        if queries.live && queries.fresh {
            run.check(queries.fault);
        }
        run.with(state, |next| {
            let side = &mut next.sides[at];
            if !queries.overtaken || !self.generations {
                side.former = Some(queries.live);
            }
            side.queries = None;
        });
    }
}

#[test]
fn with_all_safeguards_a_first_use_ends_the_former_secret() {
    assert_sound("rotation", explore(&ALL), 5_000);
}

#[test]
fn without_any_one_safeguard_the_former_secret_may_live_on() {
    assert_needed(
        "recorded_first",
        explore(&Safeguards {
            recorded_first: false,
            ..ALL
        }),
    );
    assert_needed(
        "unused_is_recorded",
        explore(&Safeguards {
            unused_is_recorded: false,
            ..ALL
        }),
    );
    assert_needed(
        "read_after_record",
        explore(&Safeguards {
            read_after_record: false,
            ..ALL
        }),
    );
    assert_needed(
        "own_change",
        explore(&Safeguards {
            own_change: false,
            ..ALL
        }),
    );
    assert_needed(
        "logged",
        explore(&Safeguards {
            logged: false,
            ..ALL
        }),
    );
    assert_needed(
        "generations",
        explore(&Safeguards {
            generations: false,
            ..ALL
        }),
    );
    assert_needed(
        "lease",
        explore(&Safeguards {
            lease: false,
            ..ALL
        }),
    );
}
