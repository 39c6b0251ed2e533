//! Queues in front of the connection pools: one per stack for changes, one per caller for reads.
//! Changes of one stack are serialised by its row lock, so more than a few at once would only hold
//! connections while they wait for it. And one caller's reads, however many or slow, must leave
//! connections for others.

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

use crate::domain::{id::StackUid, stack::StackKey};
use crate::store::Error;

/// Changes of one stack that may hold a connection: one that runs and the next one, so that the
/// lock is never idle.
const CHANGES_AT_ONCE: usize = 2;
/// Changes of one stack that may wait in its queue, without a connection.
const CHANGES_WAITING: usize = 100;
/// The longest wait in a queue. Below the default deadline, so that the caller gets OVERLOADED
/// rather than DEADLINE.
pub(in crate::store) const WAIT_FOR: Duration = Duration::from_secs(4);

/// The stack that a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum Of {
    /// By its key.
    Key(StackKey),
    /// By its id, where only that is known: when the first use of a secret is recorded.
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
    /// The number of calls that wait or hold a permit.
    present: AtomicUsize,
}

type Lines<K> = Arc<Mutex<HashMap<K, Arc<Line>>>>;

/// The queues of all stacks, or of all callers. A queue exists only while it is not empty.
pub(in crate::store) struct Turns<K: Eq + Hash = Of> {
    lines: Lines<K>,
    at_once: usize,
    present: usize,
}

/// A permit to use a connection. Dropping it lets the next one in the queue go on.
pub(in crate::store) struct Turn<K: Eq + Hash = Of> {
    _place: Place<K>,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    /// Returns the queues for changes.
    pub fn of_changes() -> Self {
        Self::new(CHANGES_AT_ONCE, CHANGES_AT_ONCE + CHANGES_WAITING)
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Returns queues with `at_once` permits and at most `present` calls each, waiting included.
    pub fn new(at_once: usize, present: usize) -> Self {
        Self {
            lines: Arc::default(),
            at_once,
            present,
        }
    }

    /// Waits for a permit in the queue of `of`.
    ///
    /// # Errors
    /// [`Error::Crowded`] if the queue is full, or the wait takes longer than [`WAIT_FOR`].
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

/// An entry in a queue. Dropping the last one removes the queue.
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
