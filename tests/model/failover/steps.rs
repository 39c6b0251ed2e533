//! The possible steps. Old connections, poolers and moving addresses may direct any statement of
//! the replica to either database, and its response may be late or lost.

use super::{
    Safeguards,
    state::{Db, FormerDatabase, Heartbeat, Lookup, Reader, Reading, Revoke, Stage, State},
};
use crate::explorer::{Model, Run};

pub struct Failover {
    pub safe: Safeguards,
    pub fate: FormerDatabase,
    pub asks: Reader,
}

impl Model for Failover {
    type State = State;

    fn starts(&self) -> Vec<State> {
        vec![State::new(Some(true)), State::new(None)]
    }

    fn step(&self, state: &State, run: &mut Run<State>) {
        run.with(state, State::tick);
        self.step_databases(state, run);
        for db in [Db::Former, Db::New] {
            if state.answers(db, self.fate) {
                self.run_statements(state, run, db);
            }
        }
        self.deliver_reading(state, run);
        self.deliver_beat(state, run);
        self.deliver_lookup(state, run);
        if state.cached == Some(true) && self.is_answered_from_cache(state) {
            run.check(state.fault(self.asks));
        }
    }
}

impl Failover {
    fn step_databases(&self, state: &State, run: &mut Run<State>) {
        if !state.moved {
            run.with(state, |next| next.moved = true);
            // After the revoke, a lost id makes no difference in this model.
            if state.revoke.is_none() {
                run.with(state, |next| next.lost_id = true);
            }
        }
        match state.revoke {
            None => run.with(state, |next| {
                let db = next.primary();
                next.revoke = Some(Revoke {
                    db,
                    id: next.next_id(db),
                    stage: Stage::Committed,
                });
            }),
            Some(revoke) if revoke.stage == Stage::Committed => run.with(state, |next| {
                let stage = Stage::Acknowledged;
                next.revoke = Some(Revoke { stage, ..revoke });
            }),
            Some(_) => {}
        }
    }

    /// Runs the replica's statements at this database. The responses to earlier statements are
    /// lost.
    fn run_statements(&self, state: &State, run: &mut Run<State>, db: Db) {
        run.with(state, |next| next.reading = Some(self.read(next, db)));
        // A former primary waits for the standby that it has lost.
        if db == state.primary() || !self.safe.waits_for_standby {
            run.with(state, |next| {
                next.beating = Some(Heartbeat { fresh: true, db })
            });
        }
        run.with(state, |next| next.lookup = Some(self.look_up(next, db)));
    }

    /// Returns whether two databases look the same to the replica.
    fn is_same(&self, one: Db, other: Db) -> bool {
        // After a crash, the two databases differ only in the incarnation.
        one == other || (self.fate == FormerDatabase::Crashed && !self.safe.incarnation)
    }

    /// Returns what a poll at this database sees.
    fn read(&self, state: &State, db: Db) -> Reading {
        let (of, from) = state.cursor;
        let continued = self.is_same(of, db) || !self.safe.cursor_origin;
        let row = state.visible(db);
        Reading {
            fresh: true,
            db,
            next: state.next_id(db),
            continued,
            revoke: row.filter(|id| continued && *id >= from),
        }
    }

    fn deliver_reading(&self, state: &State, run: &mut Run<State>) {
        let Some(reading) = state.reading else { return };
        run.with(state, |next| {
            next.reading = None;
            if !self.safe.lease_origin || self.is_same(reading.db, next.origin) {
                self.apply(next, reading);
            }
        });
    }

    fn apply(&self, state: &mut State, reading: Reading) {
        let emptied = !reading.continued && self.safe.emptying;
        if emptied || reading.revoke.is_some() {
            state.cached = None;
            if let Some(lookup) = &mut state.lookup {
                lookup.overtaken |= reading.revoke.is_some() || self.safe.emptying_counts;
            }
        }
        // The applied revision does not matter to questions that only require freshness.
        if self.asks == Reader::MinRevision {
            state.applied = if self.safe.revision_of_rows {
                let known = if reading.continued { state.applied } else { 0 };
                known.max(reading.revoke.unwrap_or(0))
            } else {
                reading.next - 1
            };
        }
        state.cursor = (reading.db, reading.next);
        state.read |= reading.fresh;
    }

    fn deliver_beat(&self, state: &State, run: &mut Run<State>) {
        let Some(beat) = state.beating else { return };
        run.with(state, |next| {
            next.beating = None;
            if self.safe.lease_origin && !self.is_same(beat.db, next.origin) {
                // A replica adopts an origin only with a heartbeat. The lease also needs a poll
                // from the new origin, so `read` is reset.
                (next.origin, next.read, next.beat) = (beat.db, false, beat.fresh);
            } else {
                next.beat |= beat.fresh;
            }
        });
    }

    fn is_answered_from_cache(&self, state: &State) -> bool {
        let reflects = match (self.asks, state.revoke) {
            (Reader::MinRevision, Some(revoke)) => state.applied >= revoke.id,
            _ => true,
        };
        reflects && state.read && state.beat
    }

    /// Returns what a lookup sees, and the fault that this answer would cause, if any.
    fn look_up(&self, state: &State, db: Db) -> Lookup {
        let row = state.visible(db);
        let reflects = match (self.asks, state.revoke) {
            (Reader::Fresh, _) => true,
            (_, Some(revoke)) if !self.safe.revision_by_row => revoke.id < state.next_id(db),
            _ => row.is_some(),
        };
        Lookup {
            fresh: true,
            db,
            live: row.is_none(),
            overtaken: false,
            fault: state.fault(self.asks).filter(|_| reflects),
        }
    }

    fn deliver_lookup(&self, state: &State, run: &mut Run<State>) {
        let Some(lookup) = state.lookup else { return };
        let trusted = !self.safe.lookup_origin || self.is_same(lookup.db, state.origin);
        if trusted && lookup.live && lookup.fresh && state.beat {
            run.check(lookup.fault);
        }
        run.with(state, |next| {
            if trusted && !lookup.overtaken {
                next.cached = Some(lookup.live);
            }
            next.lookup = None;
        });
    }
}
