//! Turns: of the changes of one stack, and of the readings of one caller. The lock of a stack lets
//! only one change go on at a time, so more of them would wait inside transactions, with the
//! connections of other stacks. And however many readings one caller asks for, and however long
//! each takes, others find a connection.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::Error;
use crate::domain::{id::StackUid, stack::StackKey};

/// How many changes of one stack have a connection: one at work, and one that follows without
/// a pause.
const CHANGES_AT_ONCE: usize = 2;
/// How many more of them may wait for their turn, without a connection.
const CHANGES_WAITING: usize = 100;
/// How long they wait, at most; less than a call may take, so that the caller is told why.
pub(super) const WAIT_FOR: Duration = Duration::from_secs(4);

/// A stack, as its change names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    /// By its key.
    Key(StackKey),
    /// By its id, where only that is known: the first use of a secret.
    Uid(StackUid),
}

impl From<&StackKey> for Of {
    fn from(key: &StackKey) -> Self {
        Self::Key(key.clone())
    }
}

impl From<StackUid> for Of {
    fn from(uid: StackUid) -> Self {
        Self::Uid(uid)
    }
}

struct Line {
    turns: Arc<Semaphore>,
    /// Those with a turn, too.
    present: AtomicUsize,
}

type Lines<K> = Arc<Mutex<HashMap<K, Arc<Line>>>>;

/// The lines before all stacks, or of all callers.
pub(super) struct Turns<K: Eq + Hash = Of> {
    lines: Lines<K>,
    at_once: usize,
    present: usize,
}

/// A turn, over when this is dropped.
pub(super) struct Turn<K: Eq + Hash = Of> {
    _place: Place<K>,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    /// Turns of changes.
    pub fn of_changes() -> Self {
        Self::new(CHANGES_AT_ONCE, CHANGES_AT_ONCE + CHANGES_WAITING)
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// So many at once in each line, and so many in it, those with a turn too.
    pub fn new(at_once: usize, present: usize) -> Self {
        Self {
            lines: Arc::default(),
            at_once,
            present,
        }
    }

    /// Waits for a turn in this line.
    ///
    /// # Errors
    /// [`Error::Crowded`] where too many wait, or for too long.
    pub async fn take(&self, of: impl Into<K>) -> Result<Turn<K>, Error> {
        let place = self.enter(of.into())?;
        let turn = place.line.turns.clone().acquire_owned();
        match timeout(WAIT_FOR, turn).await {
            Ok(Ok(turn)) => Ok(Turn {
                _place: place,
                _turn: turn,
            }),
            _ => Err(Error::Crowded),
        }
    }

    fn enter(&self, of: K) -> Result<Place<K>, Error> {
        let mut lines = lock(&self.lines);
        let line = lines.entry(of.clone()).or_insert_with(|| {
            Arc::new(Line {
                turns: Arc::new(Semaphore::new(self.at_once)),
                present: AtomicUsize::new(0),
            })
        });
        if line.present.load(Ordering::Relaxed) >= self.present {
            return Err(Error::Crowded);
        }
        line.present.fetch_add(1, Ordering::Relaxed);
        Ok(Place {
            line: line.clone(),
            lines: self.lines.clone(),
            of,
        })
    }
}

/// A place in a line; the last to leave takes the line along.
struct Place<K: Eq + Hash> {
    line: Arc<Line>,
    lines: Lines<K>,
    of: K,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut lines = lock(&self.lines);
        if self.line.present.fetch_sub(1, Ordering::Relaxed) == 1 {
            lines.remove(&self.of);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
