//! Rotation until first use: the first answer that the new secret is active ends the former one,
//! on the replica that gave it at once, and on the other within the bound. Two replicas on one
//! store; the feed is one step here, since other models take it apart. Time is a tick, as long as
//! the bound.

use crate::explorer::{Model, Run, assert_needed, assert_sound, explore};

#[derive(Clone, Copy)]
struct Safeguards {
    /// The first use is on record before it is answered.
    recorded_first: bool,
    /// Facts of an unused secret are never answered as active.
    unused_is_recorded: bool,
    /// The answer is judged on what is read after the record.
    read_after_record: bool,
    /// The replica that recorded it evicts before it answers.
    own_change: bool,
    /// The record writes a row of the change log.
    logged: bool,
    /// Eviction refuses look-ups of the former secret that were under way.
    generations: bool,
    /// The cache is answered from only under a lease.
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

/// A question about the new secret, on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum FirstUse {
    Arrived,
    /// The facts that it was found with say that it is unused.
    Unused,
    /// The first use is on record, and the answer is to be read.
    Recorded,
}

/// A question about the former secret that reads the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Asked {
    /// Whether it arrived in this tick.
    fresh: bool,
    live: bool,
    /// Whether something was evicted since.
    overtaken: bool,
    /// What is wrong with an answer that the secret is active.
    fault: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Replica {
    /// Whether the former secret is cached, and whether as live.
    former: Option<bool>,
    /// Whether the facts of the new secret are cached, and whether as used.
    new: Option<bool>,
    /// Whether the change log was read in this tick.
    read: bool,
    first_use: Option<FirstUse>,
    asked: Option<Asked>,
    /// Whether it has answered that the new secret is active.
    answered: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Told {
    Never,
    Within,
    /// Longer ago than the bound.
    Past,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    /// In the store: whether the first use is on record, and so the former secret ended.
    used: bool,
    /// Whether that is in the change log.
    logged: bool,
    /// Whether the token as a whole was revoked at A, where nothing is active from then on.
    revoked: bool,
    /// Whether anybody was told that the new secret is active.
    told: Told,
    sides: [Replica; 2],
}

impl World {
    fn evict(&mut self, at: usize) {
        let side = &mut self.sides[at];
        (side.former, side.new) = (None, None);
        if let Some(asked) = &mut side.asked {
            asked.overtaken = true;
        }
    }

    /// What is wrong with an answer that the former secret is active, to a question that
    /// arrives now.
    fn fault(&self, at: usize) -> Option<&'static str> {
        if self.sides[at].answered {
            return Some("the former secret lives on where the new one was used");
        }
        (self.told == Told::Past).then_some("the former secret lives on past the bound")
    }
}

impl Model for Safeguards {
    type World = World;

    fn starts(&self) -> Vec<World> {
        let side = |former, new| Replica {
            former,
            new,
            read: true,
            ..Replica::default()
        };
        let start = |a, b| World {
            used: false,
            logged: false,
            revoked: false,
            told: Told::Never,
            sides: [a, b],
        };
        let warm = || side(Some(true), Some(false));
        vec![start(warm(), warm()), start(side(None, None), warm())]
    }

    fn step(&self, world: &World, run: &mut Run<World>) {
        run.with(world, |next| {
            if next.told == Told::Within {
                next.told = Told::Past;
            }
            for side in &mut next.sides {
                side.read = false;
                if let Some(asked) = &mut side.asked {
                    asked.fresh = false;
                }
            }
        });
        // Revoked at A, which applies its own change as it commits.
        if !world.revoked {
            run.with(world, |next| {
                next.revoked = true;
                next.evict(0);
            });
        }
        for side in 0..2 {
            self.step_feed(world, run, side);
            self.step_first_use(world, run, side);
            self.step_former(world, run, side);
        }
    }
}

impl Safeguards {
    fn step_feed(&self, world: &World, run: &mut Run<World>, side: usize) {
        run.with(world, |next| {
            if next.logged || next.revoked {
                next.evict(side);
            }
            next.sides[side].read = true;
        });
    }

    /// A question about the new secret.
    fn step_first_use(&self, world: &World, run: &mut Run<World>, at: usize) {
        let side = &world.sides[at];
        match side.first_use {
            // Asked at A alone: at B only the former secret is watched.
            None if at == 0 && !side.answered => run.with(world, |next| {
                next.sides[at].first_use = Some(FirstUse::Arrived);
            }),
            None => {}
            Some(FirstUse::Arrived) => {
                let cached = side.new.filter(|_| side.read || !self.lease);
                let used = cached.unwrap_or(world.used);
                if cached.is_none() && world.revoked {
                    // Inactive, and that is the answer.
                    run.with(world, |next| next.sides[at].first_use = None);
                } else if used || !self.unused_is_recorded {
                    self.tell(world, run, at);
                } else {
                    run.with(world, |next| {
                        next.sides[at].first_use = Some(FirstUse::Unused);
                    });
                }
            }
            Some(FirstUse::Unused) if !self.recorded_first => self.tell(world, run, at),
            Some(FirstUse::Unused) => self.record(world, run, at),
            Some(FirstUse::Recorded) if world.revoked && self.read_after_record => {
                run.with(world, |next| next.sides[at].first_use = None);
            }
            Some(FirstUse::Recorded) => self.tell(world, run, at),
        }
    }

    /// Commits the first use, which ends the former secret.
    fn record(&self, world: &World, run: &mut Run<World>, at: usize) {
        if world.revoked {
            // Nothing to record: what is read next says why.
            run.with(world, |next| {
                next.sides[at].first_use = Some(FirstUse::Recorded);
            });
            return;
        }
        run.with(world, |next| {
            next.used = true;
            next.logged = self.logged;
            if self.own_change {
                next.evict(at);
            }
            next.sides[at].first_use = Some(FirstUse::Recorded);
        });
    }

    /// Answers that the new secret is active.
    fn tell(&self, world: &World, run: &mut Run<World>, at: usize) {
        run.check((!world.used).then_some("active, and the first use is not on record"));
        run.check((world.revoked && at == 0).then_some("active though it was revoked here"));
        run.with(world, |next| {
            if next.told == Told::Never {
                next.told = Told::Within;
            }
            let side = &mut next.sides[at];
            (side.first_use, side.answered) = (None, true);
        });
    }

    /// A question about the former secret.
    fn step_former(&self, world: &World, run: &mut Run<World>, at: usize) {
        let side = &world.sides[at];
        let leased = side.read || !self.lease;
        if side.former == Some(true) && leased {
            run.check(world.fault(at));
        }
        let Some(asked) = side.asked else {
            run.with(world, |next| {
                next.sides[at].asked = Some(Asked {
                    fresh: true,
                    live: !next.used && !next.revoked,
                    overtaken: false,
                    fault: next.fault(at),
                });
            });
            return;
        };
        if asked.live && asked.fresh {
            run.check(asked.fault);
        }
        run.with(world, |next| {
            let side = &mut next.sides[at];
            if !asked.overtaken || !self.generations {
                side.former = Some(asked.live);
            }
            side.asked = None;
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
