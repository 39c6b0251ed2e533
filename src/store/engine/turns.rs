//! Queues in front of the connection pools. There is one for the changes of each stack, and one for
//! the reads of each caller. The changes of a stack are serialised by its row lock, so more than a
//! few at a time would only hold connections while they wait for the lock. And the reads of one
//! caller must leave connections for others, however many or slow they are.

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

/// How many changes of one stack may hold a connection at the same time. While one runs, the next
/// is ready, so that the lock is never idle.
const CHANGES_AT_ONCE: usize = 2;
/// How many changes of one stack may wait in its queue without a connection.
const CHANGES_WAITING: usize = 100;
/// The longest wait in a queue. It is shorter than the default deadline of a call, so that the
/// caller gets OVERLOADED and not DEADLINE.
pub(in crate::store) const WAIT_FOR: Duration = Duration::from_secs(4);

/// The stack that a change is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum Of {
    /// The key of the stack.
    Key(StackKey),
    /// The id of the stack, if only the id is known, as when the first use of a secret is recorded.
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
    /// The number of calls that wait for a permit or hold one.
    present: AtomicUsize,
}

type Lines<K> = Arc<Mutex<HashMap<K, Arc<Line>>>>;

/// The queues of all stacks, or of all callers. A queue exists only while it is not empty.
pub(in crate::store) struct Turns<K: Eq + Hash = Of> {
    lines: Lines<K>,
    at_once: usize,
    present: usize,
}

/// A permit to use a connection. When it is dropped, the next call in the queue gets a permit.
pub(in crate::store) struct Turn<K: Eq + Hash = Of> {
    _place: Place<K>,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    /// Creates the queues for changes.
    pub fn of_changes() -> Self {
        Self::new(CHANGES_AT_ONCE, CHANGES_AT_ONCE + CHANGES_WAITING)
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Creates queues that each have `at_once` permits and hold at most `present` calls, including
    /// those that wait.
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
    /// Returns [`Error::Crowded`] if the queue is full, or if the wait takes longer than
    /// [`WAIT_FOR`].
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

/// An entry in a queue. When the last entry is dropped, the queue is removed.
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
