//! The restore guard. A backup does not know what was revoked after it was made. So each replica
//! keeps, outside the database, a mark of how far the change log was written, and a journal of every
//! change that takes something away. A database that is behind the mark was restored from the past,
//! or has lost its last changes in a failover: this process answers and changes nothing with it
//! until `stacktoken restore apply` has ended again what had ended. Without a guard, nothing here is
//! used.

mod check;
mod effect;
mod fold;
mod journal;
mod line;
mod mark;
mod place;
mod read;
mod restore;
mod seal;
mod tail;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::oneshot, time::timeout};

pub use self::{
    check::GuardHealth,
    journal::JournalStats,
    place::{GuardLocation, GuardLocationError},
    restore::{Ended, JournalReport, RestorePlan, RestorePreview, Restored, Unknown},
};
pub(in crate::store) use self::{effect::of as effect_of, line::Effect, line::Intent};
use self::{
    journal::Journal,
    line::Line,
    mark::{GuardFile, Mark, Row},
    place::Place,
    seal::Seal,
};
use crate::{
    domain::{clock::Clock, entropy::Entropy, origin::Origin},
    store::{Error, Store},
};

/// How long a change waits before its COMMIT until its intent is flushed. Shorter than PostgreSQL's
/// `idle_in_transaction_session_timeout`, which would otherwise terminate the connection while the
/// transaction holds the lock of its stack.
const FLUSH_FOR: Duration = Duration::from_secs(2);
/// How long a change that is committed waits for its outcome to be durable. On SQLite, the next
/// changes wait meanwhile, so both together are shorter than they may wait.
const OUTCOME_FOR: Duration = Duration::from_millis(500);
/// How many rows of this process are compared with the database besides those of its mark.
const RECENT: usize = 64;

/// Whether a change waits for the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardMode {
    /// The journal is written in the background, within a second.
    Background,
    /// The intent of a change is durable before its COMMIT, and its outcome before it is
    /// acknowledged.
    Strict,
}

/// Why the guard cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The place cannot be read or written.
    #[error("the place of the guard cannot be used: {0}")]
    Place(#[from] io::Error),
    /// A file is damaged, or was sealed with another key.
    #[error(
        "{0} is damaged, or was written with another --guard-key-file: restore the file or the key, \
         or set the files aside and begin a new guard with `stacktoken restore new-guard`"
    )]
    Damaged(String),
    /// The database is guarded, but the place has no guard.
    #[error(
        "the database has a guard, but there is none here: mount the right place, or begin a new \
         guard with `stacktoken restore new-guard`"
    )]
    Missing,
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
}

type Turn = tokio::sync::Mutex<()>;

/// The guard of a store.
pub struct Guard {
    place: Arc<dyn Place>,
    seal: Arc<Seal>,
    /// The name of this process in the names of files.
    replica: String,
    mode: GuardMode,
    journal: Journal,
    changes: AtomicU64,
    /// Held by what reads or writes the place, other than the journal.
    turn: Arc<Turn>,
    /// Whether the database is behind the mark.
    restored: Arc<AtomicBool>,
    /// The last mark of this process.
    mark: Mutex<Option<Mark>>,
    /// The last rows that this process has committed, which can be younger than its mark.
    recent: Mutex<VecDeque<(GuardFile, Row)>>,
    /// The last database that was found not to be behind the mark.
    checked: ArcSwapOption<Origin>,
}

/// Changes whose intent is in the journal, and whose outcome is not.
pub(in crate::store) struct Announced {
    guard: Arc<Guard>,
    change: String,
    /// The newest row of the change log that the transaction wrote.
    row: Option<Row>,
}

impl Guard {
    /// Opens the guard at this location. Nothing is written yet.
    ///
    /// # Errors
    /// Returns [`GuardError::Place`] if the location cannot be read.
    pub fn open(
        location: &GuardLocation,
        key: Option<&[u8]>,
        mode: GuardMode,
        (clock, entropy): (Arc<dyn Clock>, &dyn Entropy),
    ) -> Result<Self, GuardError> {
        let mut random = [0; 8];
        entropy.fill(&mut random).map_err(Error::from)?;
        let replica = format!("{:016x}", u64::from_be_bytes(random));
        let place: Arc<dyn Place> = location.place(&replica).into();
        place.names()?;
        let seal = Arc::new(Seal::new(key));
        let journal = Journal::start(place.clone(), seal.clone(), replica.clone(), clock)?;
        Ok(Self {
            place,
            seal,
            replica,
            mode,
            journal,
            changes: AtomicU64::new(0),
            turn: Arc::default(),
            restored: Arc::default(),
            mark: Mutex::default(),
            recent: Mutex::default(),
            checked: ArcSwapOption::empty(),
        })
    }

    /// Puts the intents of a transaction into the journal. With [`GuardMode::Strict`], they are
    /// durable when this returns.
    ///
    /// # Errors
    /// Returns [`Error::GuardUnavailable`] if they are not durable in time. The transaction must not
    /// be committed then.
    pub(in crate::store) async fn announce(
        self: &Arc<Self>,
        mut intents: Vec<Intent>,
    ) -> Result<Announced, Error> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let change = format!("{}-{number}", self.replica);
        for intent in &mut intents {
            intent.change.clone_from(&change);
        }
        let rows = intents.iter().map(|intent| (intent.position, intent.at));
        let announced = Announced {
            guard: self.clone(),
            change,
            row: rows.max(),
        };
        let lines = intents.into_iter().map(Line::Intent).collect();
        if self.append(lines, FLUSH_FOR).await {
            return Ok(announced);
        }
        announced.aborted();
        Err(Error::GuardUnavailable)
    }

    /// Returns whether the lines are in the journal, as far as the mode requires that.
    async fn append(&self, lines: Vec<Line>, limit: Duration) -> bool {
        let told = self.journal.append(lines, self.mode == GuardMode::Strict);
        match told {
            None => true,
            Some(told) => flushed(told, limit).await,
        }
    }

    /// Returns a flag that is set while the database is behind the mark.
    pub(in crate::store) fn restored(&self) -> Arc<AtomicBool> {
        self.restored.clone()
    }

    /// Checks that the database was not found to be behind the mark.
    pub(in crate::store) fn require_current(&self) -> Result<(), Error> {
        if self.restored.load(Ordering::Acquire) {
            return Err(Error::RestoredFromPast);
        }
        Ok(())
    }

    fn set_restored(&self, restored: bool) {
        if self.restored.swap(restored, Ordering::AcqRel) == restored {
            return;
        }
        if restored {
            tracing::error!(
                "{}: nothing is answered or changed until then",
                Error::RestoredFromPast
            );
        } else {
            tracing::info!("the database is not behind the restore guard any more");
        }
    }

    fn mark(&self) -> Option<Mark> {
        let mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        mark.clone()
    }

    fn note_committed(&self, row: Row) {
        // The store is compared with the guard, and gets a mark, before its first change.
        let Some(of) = self.mark().map(|mark| mark.of) else {
            return;
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back((of, row));
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    /// Returns the last rows that this process has committed in this epoch.
    fn recent(&self, of: GuardFile) -> Vec<Row> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = recent.iter().filter(|(known, _)| *known == of);
        of_this.map(|(_, row)| *row).collect()
    }

    fn file(&self) -> Result<Option<GuardFile>, GuardError> {
        GuardFile::load(&*self.place, &self.seal)
    }

    /// Writes what waits. Nothing can be written afterwards.
    pub(in crate::store) async fn close(&self) {
        self.journal.close().await;
    }
}

impl Announced {
    /// Records that the transaction was committed. With [`GuardMode::Strict`], that is durable when
    /// this returns, unless the guard fails: the change has been made, so it is acknowledged all the
    /// same, and a later restore lists it as one of unknown outcome.
    pub async fn committed(self) {
        if let Some(row) = self.row {
            self.guard.note_committed(row);
        }
        if !self
            .guard
            .append(vec![self.outcome(true)], OUTCOME_FOR)
            .await
        {
            tracing::warn!(
                change = self.change,
                "the guard has the change, but not its outcome"
            );
        }
    }

    /// Records that the transaction changed nothing.
    pub fn aborted(self) {
        let outcome = self.outcome(false);
        let _ = self.guard.journal.append(vec![outcome], false);
    }

    fn outcome(&self, committed: bool) -> Line {
        Line::Outcome {
            change: self.change.clone(),
            committed,
        }
    }
}

async fn flushed(told: oneshot::Receiver<()>, limit: Duration) -> bool {
    matches!(timeout(limit, told).await, Ok(Ok(())))
}

impl Store {
    /// Guards the store. Call [`Self::check_guard`] before the store is used.
    #[must_use]
    pub fn guarded(mut self, guard: Guard) -> Self {
        let guard = Arc::new(guard);
        self.outcomes.report_to(guard.clone());
        self.guard = Some(guard);
        self
    }

    /// Returns whether the database is behind the mark of its guard.
    #[must_use]
    pub fn is_restored_from_past(&self) -> bool {
        let guard = self.guard.as_ref();
        guard.is_some_and(|guard| guard.require_current().is_err())
    }
}
