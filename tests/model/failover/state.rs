//! Two databases, a replica that reads either, and one revoke.
//!
//! Time advances in ticks as long as the freshness bound: what started in this tick is within the
//! bound, and what started before is past it. A statement executes at one instant, and its response
//! arrives at any later time. Executing late does not make a result newer: what counts is when the
//! statement was started.

/// A database that answers statements; the replica identifies it by its origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Db {
    /// The initial primary.
    Former,
    /// The promoted standby, or the same server after a crash.
    New,
}

/// What happens to the former database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FormerDatabase {
    /// Its standby is promoted; the former one still answers reads, unfenced.
    Demoted,
    /// It restarts with the same timeline, and assigns ids again that were never flushed.
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

/// The result of a poll of the change log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reading {
    /// Whether it started in this tick.
    pub fresh: bool,
    pub db: Db,
    /// Where the next poll continues.
    pub next: u8,
    /// Whether it continued from a cursor.
    pub continued: bool,
    /// The id of the revoke, if it is among the rows.
    pub revoke: Option<u8>,
}

/// A heartbeat, and where it was committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    pub fresh: bool,
    pub db: Db,
}

/// A lookup, started by a question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lookup {
    pub fresh: bool,
    pub db: Db,
    pub live: bool,
    /// Whether its subject was evicted since it started.
    pub overtaken: bool,
    /// The fault of answering that the token is live.
    pub fault: Option<&'static str>,
}

/// What a question requires.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reader {
    /// An answer that is fresh within the bound.
    Fresh,
    /// An answer that reflects the revoke, for callers that saw it acknowledged.
    MinRevision,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub moved: bool,
    /// Whether a transaction at the former database took an id and left no trace at the new one.
    pub lost_id: bool,
    pub revoke: Option<Revoke>,
    // The state of the replica.
    pub origin: Db,
    /// Whether a poll and a heartbeat that started in this tick have arrived.
    pub read: bool,
    pub beat: bool,
    pub cursor: (Db, u8),
    /// The highest position that the replica considers applied.
    pub applied: u8,
    pub cached: Option<bool>,
    // Responses in flight.
    pub reading: Option<Reading>,
    pub beating: Option<Heartbeat>,
    pub lookup: Option<Lookup>,
}

impl State {
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

    /// Returns the database that commits.
    pub fn primary(&self) -> Db {
        if self.moved { Db::New } else { Db::Former }
    }

    /// Returns whether this database can still answer statements.
    pub fn answers(&self, db: Db, fate: FormerDatabase) -> bool {
        match db {
            Db::Former => !self.moved || fate == FormerDatabase::Demoted,
            Db::New => self.moved,
        }
    }

    /// Returns the next transaction id of a database: the new one assigns the ids again that the
    /// former one assigned after its last flush.
    pub fn next_id(&self, db: Db) -> u8 {
        let lost = u8::from(self.lost_id && db == Db::Former);
        1 + lost + u8::from(self.visible(db).is_some())
    }

    /// Returns the id of the revoke, if this database has it: the new one has all that was
    /// committed at the former one.
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

    /// Returns the fault of answering "live" to a question that arrives now, if it is a fault.
    pub fn fault(&self, asks: Reader) -> Option<&'static str> {
        match (asks, self.revoke?.stage) {
            (Reader::Fresh, Stage::Past) => Some("live past the bound"),
            (Reader::MinRevision, Stage::Acknowledged | Stage::Past) => {
                Some("live despite min_revision")
            }
            _ => None,
        }
    }
}
