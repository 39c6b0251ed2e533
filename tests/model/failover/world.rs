//! Two databases, a replica that reads either, and one revoke.
//!
//! Time is a tick, as long as the freshness bound: what began in this tick is within the bound,
//! and what began before is past it. A statement runs at one instant and is answered any time
//! later; one that waits before it runs proves less than one begun just then.

/// The database that answered: what a replica knows of it is its origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Db {
    /// The primary of the beginning.
    Former,
    /// The promoted standby, or the same server after a crash.
    New,
}

/// What becomes of the former database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// Its standby is promoted; it goes on answering reads, unfenced.
    Demoted,
    /// It restarts: it has the same timeline, and ids that were never flushed are given out again.
    Crashed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Committed,
    Acknowledged,
    /// Acknowledged longer ago than the bound.
    Past,
}

/// A revoke: where it was committed, and with which transaction id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Revoke {
    pub db: Db,
    pub id: u8,
    pub stage: Stage,
}

/// What a statement saw of the change log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reading {
    /// Whether it began in this tick.
    pub fresh: bool,
    pub db: Db,
    /// Where to go on.
    pub next: u8,
    /// Whether it went on from a cursor.
    pub continued: bool,
    /// The revoke, where it is among the rows.
    pub revoke: Option<u8>,
}

/// A heartbeat, and where it was committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Beat {
    pub fresh: bool,
    pub db: Db,
}

/// A look-up, begun by a question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lookup {
    pub fresh: bool,
    pub db: Db,
    pub live: bool,
    /// Whether something was evicted since.
    pub overtaken: bool,
    /// What is wrong with an answer that the token is live.
    pub fault: Option<&'static str>,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Asks {
    /// What is fresh within the bound.
    Fresh,
    /// What reflects the revoke, by those who saw it acknowledged.
    MinRevision,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub moved: bool,
    /// Whether a transaction at the former took an id and left no trace at the new one.
    pub lost_id: bool,
    pub revoke: Option<Revoke>,
    // The replica from here on.
    pub origin: Db,
    /// Whether a reading and a heartbeat that began in this tick are known.
    pub read: bool,
    pub beat: bool,
    pub cursor: (Db, u8),
    /// The highest position that it takes for applied.
    pub applied: u8,
    pub cached: Option<bool>,
    // What is on its way to it.
    pub reading: Option<Reading>,
    pub beating: Option<Beat>,
    pub lookup: Option<Lookup>,
}

impl World {
    pub fn new(cached: Option<bool>) -> Self {
        Self {
            moved: false,
            lost_id: false,
            revoke: None,
            origin: Db::Former,
            read: true,
            beat: true,
            cursor: (Db::Former, 1),
            applied: 0,
            cached,
            reading: None,
            beating: None,
            lookup: None,
        }
    }

    /// The database that commits.
    pub fn primary(&self) -> Db {
        if self.moved { Db::New } else { Db::Former }
    }

    /// Whether a statement can still be answered by this database.
    pub fn answers(&self, db: Db, fate: Fate) -> bool {
        match db {
            Db::Former => !self.moved || fate == Fate::Demoted,
            Db::New => self.moved,
        }
    }

    /// The next transaction id there: what the former gave out since the last flush, the new
    /// one gives out again.
    pub fn next_id(&self, db: Db) -> u8 {
        let lost = u8::from(self.lost_id && db == Db::Former);
        1 + lost + u8::from(self.visible(db).is_some())
    }

    /// The id of the revoke, where it can be seen there: what was committed at the former, the
    /// new one has too.
    pub fn visible(&self, db: Db) -> Option<u8> {
        let revoke = self.revoke?;
        (revoke.db == Db::Former || revoke.db == db).then_some(revoke.id)
    }

    pub fn tick(&mut self) {
        (self.read, self.beat) = (false, false);
        if let Some(reading) = &mut self.reading {
            reading.fresh = false;
        }
        if let Some(beating) = &mut self.beating {
            beating.fresh = false;
        }
        if let Some(lookup) = &mut self.lookup {
            lookup.fresh = false;
        }
        if let Some(revoke) = &mut self.revoke
            && revoke.stage == Stage::Acknowledged
        {
            revoke.stage = Stage::Past;
        }
    }

    /// What is wrong with an answer that the token is live to a question that arrives now, if
    /// anything is.
    pub fn fault(&self, asks: Asks) -> Option<&'static str> {
        match (asks, self.revoke?.stage) {
            (Asks::Fresh, Stage::Past) => Some("live past the bound"),
            (Asks::MinRevision, Stage::Acknowledged | Stage::Past) => {
                Some("live in spite of min_revision")
            }
            _ => None,
        }
    }
}
