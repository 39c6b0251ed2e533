//! The state: two databases, a replica that reads either of them, and one revoke.
//!
//! Time advances in ticks. A tick is as long as the freshness bound: a statement that was started
//! in this tick is within the bound, and one that was started earlier is past it. A statement is
//! executed at one instant, and its response may arrive at any later time. A late execution does
//! not make the result newer; only the start of the statement counts.

/// A database that executes statements. The replica identifies it by its origin.
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
    /// Its standby is promoted, but the former database is not fenced and still answers reads.
    Demoted,
    /// It restarts with the same timeline, and assigns those ids again that were never flushed.
    Crashed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Committed,
    Acknowledged,
    /// The revoke was acknowledged longer ago than the bound.
    Past,
}

/// A revoke, with the database that committed it and its transaction id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Revoke {
    pub db: Db,
    pub id: u8,
    pub stage: Stage,
}

/// The result of a poll of the change log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reading {
    /// Whether the poll started in this tick.
    pub fresh: bool,
    pub db: Db,
    /// The id at which the next poll continues.
    pub next: u8,
    /// Whether the poll continued from a cursor.
    pub continued: bool,
    /// The id of the revoke, if it is among the rows.
    pub revoke: Option<u8>,
}

/// A heartbeat, with the database that committed it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    pub fresh: bool,
    pub db: Db,
}

/// A lookup that a question has started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lookup {
    pub fresh: bool,
    pub db: Db,
    pub live: bool,
    /// Whether the token was evicted after the lookup started.
    pub overtaken: bool,
    /// The fault that the answer "live" would cause, if any.
    pub fault: Option<&'static str>,
}

/// What a question requires.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reader {
    /// An answer that is fresh within the bound.
    Fresh,
    /// An answer that reflects the revoke, because the caller saw the revoke acknowledged.
    MinRevision,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub moved: bool,
    /// Whether a transaction at the former database took an id but is missing in the new one.
    pub lost_id: bool,
    pub revoke: Option<Revoke>,
    // These fields are the state of the replica.
    pub origin: Db,
    /// Whether a poll and a heartbeat have arrived that started in this tick.
    pub read: bool,
    pub beat: bool,
    pub cursor: (Db, u8),
    /// The highest id that the replica considers applied.
    pub applied: u8,
    pub cached: Option<bool>,
    // These fields are the responses that are on their way.
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

    /// Returns the database that commits transactions.
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

    /// Returns the next transaction id of a database. The new database assigns those ids again that
    /// the former one assigned after its last flush.
    pub fn next_id(&self, db: Db) -> u8 {
        let lost = u8::from(self.lost_id && db == Db::Former);
        1 + lost + u8::from(self.visible(db).is_some())
    }

    /// Returns the id of the revoke if this database has it. The new database has everything that
    /// was committed at the former one.
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

    /// Returns the fault that the answer "live" to a question that arrives now would cause, if any.
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
