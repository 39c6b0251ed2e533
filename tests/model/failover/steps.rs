//! What can happen next. Every statement of the replica may reach either database, as old
//! connections, poolers and addresses that move have it; its answer may be late or lost.

use super::{
    Safeguards,
    world::{Asks, Beat, Db, Fate, Lookup, Reading, Revoke, Stage, World},
};
use crate::explorer::{Model, Run};

pub struct Failover {
    pub safe: Safeguards,
    pub fate: Fate,
    pub asks: Asks,
}

impl Model for Failover {
    type World = World;

    fn starts(&self) -> Vec<World> {
        vec![World::new(Some(true)), World::new(None)]
    }

    fn step(&self, world: &World, run: &mut Run<World>) {
        run.with(world, World::tick);
        self.step_databases(world, run);
        for db in [Db::Former, Db::New] {
            if world.answers(db, self.fate) {
                self.run_statements(world, run, db);
            }
        }
        self.deliver_reading(world, run);
        self.deliver_beat(world, run);
        self.deliver_lookup(world, run);
        if world.cached == Some(true) && self.is_answered_from_cache(world) {
            run.check(world.fault(self.asks));
        }
    }
}

impl Failover {
    fn step_databases(&self, world: &World, run: &mut Run<World>) {
        if !world.moved {
            run.with(world, |next| next.moved = true);
            // After a revoke it would change nothing that matters here.
            if world.revoke.is_none() {
                run.with(world, |next| next.lost_id = true);
            }
        }
        match world.revoke {
            None => run.with(world, |next| {
                let db = next.primary();
                next.revoke = Some(Revoke {
                    db,
                    id: next.next_id(db),
                    stage: Stage::Committed,
                });
            }),
            Some(revoke) if revoke.stage == Stage::Committed => run.with(world, |next| {
                let stage = Stage::Acknowledged;
                next.revoke = Some(Revoke { stage, ..revoke });
            }),
            Some(_) => {}
        }
    }

    /// Statements run at this database, in place of earlier ones whose answers are lost.
    fn run_statements(&self, world: &World, run: &mut Run<World>, db: Db) {
        run.with(world, |next| next.reading = Some(self.read(next, db)));
        // A former primary waits for the standby that it lost.
        if db == world.primary() || !self.safe.waits_for_standby {
            run.with(world, |next| next.beating = Some(Beat { fresh: true, db }));
        }
        run.with(world, |next| next.lookup = Some(self.look_up(next, db)));
    }

    /// Whether two databases look the same to the replica.
    fn is_same(&self, one: Db, other: Db) -> bool {
        // After a crash nothing but the incarnation differs.
        one == other || (self.fate == Fate::Crashed && !self.safe.incarnation)
    }

    /// What a statement that reads the change log sees.
    fn read(&self, world: &World, db: Db) -> Reading {
        let (of, from) = world.cursor;
        let continued = self.is_same(of, db) || !self.safe.cursor_origin;
        let row = world.visible(db);
        Reading {
            fresh: true,
            db,
            next: world.next_id(db),
            continued,
            revoke: row.filter(|id| continued && *id >= from),
        }
    }

    fn deliver_reading(&self, world: &World, run: &mut Run<World>) {
        let Some(reading) = world.reading else { return };
        run.with(world, |next| {
            next.reading = None;
            if !self.safe.lease_origin || self.is_same(reading.db, next.origin) {
                self.apply(next, reading);
            }
        });
    }

    fn apply(&self, world: &mut World, reading: Reading) {
        let emptied = !reading.continued && self.safe.emptying;
        if emptied || reading.revoke.is_some() {
            world.cached = None;
            if let Some(lookup) = &mut world.lookup {
                lookup.overtaken |= reading.revoke.is_some() || self.safe.emptying_counts;
            }
        }
        // Of no account where only freshness is asked for.
        if self.asks == Asks::MinRevision {
            world.applied = if self.safe.revision_of_rows {
                let known = if reading.continued { world.applied } else { 0 };
                known.max(reading.revoke.unwrap_or(0))
            } else {
                reading.next - 1
            };
        }
        world.cursor = (reading.db, reading.next);
        world.read |= reading.fresh;
    }

    fn deliver_beat(&self, world: &World, run: &mut Run<World>) {
        let Some(beat) = world.beating else { return };
        run.with(world, |next| {
            next.beating = None;
            if self.safe.lease_origin && !self.is_same(beat.db, next.origin) {
                // Only a heartbeat adopts an origin; a reading of it is yet to come.
                (next.origin, next.read, next.beat) = (beat.db, false, beat.fresh);
            } else {
                next.beat |= beat.fresh;
            }
        });
    }

    fn is_answered_from_cache(&self, world: &World) -> bool {
        let reflects = match (self.asks, world.revoke) {
            (Asks::MinRevision, Some(revoke)) => world.applied >= revoke.id,
            _ => true,
        };
        reflects && world.read && world.beat
    }

    /// What a look-up sees, and what is wrong with saying so.
    fn look_up(&self, world: &World, db: Db) -> Lookup {
        let row = world.visible(db);
        let reflects = match (self.asks, world.revoke) {
            (Asks::Fresh, _) => true,
            (_, Some(revoke)) if !self.safe.revision_by_row => revoke.id < world.next_id(db),
            _ => row.is_some(),
        };
        Lookup {
            fresh: true,
            db,
            live: row.is_none(),
            overtaken: false,
            fault: world.fault(self.asks).filter(|_| reflects),
        }
    }

    fn deliver_lookup(&self, world: &World, run: &mut Run<World>) {
        let Some(lookup) = world.lookup else { return };
        let trusted = !self.safe.lookup_origin || self.is_same(lookup.db, world.origin);
        if trusted && lookup.live && lookup.fresh && world.beat {
            run.check(lookup.fault);
        }
        run.with(world, |next| {
            if trusted && !lookup.overtaken {
                next.cached = Some(lookup.live);
            }
            next.lookup = None;
        });
    }
}
