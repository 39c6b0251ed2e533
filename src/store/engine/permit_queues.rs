//! Queues calls in front of the connection pools. There is one queue for the changes of each stack,
//! and one for the reads of each caller. The changes of a stack are serialized by the stack's row
//! lock, so if more than a few ran at a time, they would only hold connections while they wait for
//! the lock. The reads of one caller must leave connections for others, however many or slow they
//! are.

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
/// How many changes of one stack that strangers requested may wait in a queue of their own. Only
/// the first of them enters the queue of the stack, so that strangers cannot fill that queue.
const STRANGERS_WAITING: usize = 8;
/// The longest wait in a queue. It is shorter than the default deadline of a call, so that the
/// caller gets OVERLOADED and not DEADLINE.
pub(in crate::store) const WAIT_FOR: Duration = Duration::from_secs(4);

/// The stack that a change modifies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) enum StackRef {
    /// The key of the stack.
    Key(StackKey),
    /// The id of the stack, if its key is not known, as when the first use of a secret is recorded.
    Uid(StackUid),
}

impl From<&StackKey> for StackRef {
    fn from(key: &StackKey) -> Self {
        Self::Key(key.clone())
    }
}

impl From<StackUid> for StackRef {
    fn from(uid: StackUid) -> Self {
        Self::Uid(uid)
    }
}

struct Queue {
    permits: Arc<Semaphore>,
    /// The number of calls that wait for a permit or hold one.
    waiting: AtomicUsize,
}

type Queues<K> = Arc<Mutex<HashMap<K, Arc<Queue>>>>;

/// The queues of all stacks, or of all callers. A queue exists only while a call waits or runs.
pub(in crate::store) struct PermitQueues<K: Eq + Hash = StackRef> {
    queues: Queues<K>,
    at_once: usize,
    waiting: usize,
}

/// A permit to use a connection. When it is dropped, the next call in the queue gets a permit.
pub(in crate::store) struct QueuePermit<K: Eq + Hash = StackRef> {
    _entry: QueueEntry<K>,
    _queue_permit: OwnedSemaphorePermit,
}

impl PermitQueues {
    /// Creates the queues for changes.
    pub fn of_changes() -> Self {
        Self::new(CHANGES_AT_ONCE, CHANGES_AT_ONCE + CHANGES_WAITING)
    }

    /// Creates the queues in which the changes of strangers wait before they enter the queues for
    /// changes.
    pub fn of_strangers() -> Self {
        Self::new(1, 1 + STRANGERS_WAITING)
    }
}

impl<K: Clone + Eq + Hash> PermitQueues<K> {
    /// Creates queues that each have `at_once` permits and hold at most `waiting` calls. The calls
    /// that have a permit are included in `waiting`.
    pub fn new(at_once: usize, waiting: usize) -> Self {
        Self {
            queues: Arc::default(),
            at_once,
            waiting,
        }
    }

    /// Waits for a permit in the queue of the stack or caller `of`.
    ///
    /// # Errors
    /// Returns [`Error::Crowded`] if the queue is full, or if the wait takes longer than
    /// [`WAIT_FOR`].
    pub async fn take(&self, of: impl Into<K>) -> Result<QueuePermit<K>, Error> {
        let entry = self.enter(of.into())?;
        let permit = entry.queue.permits.clone().acquire_owned();
        match timeout(WAIT_FOR, permit).await {
            Ok(Ok(permit)) => Ok(QueuePermit {
                _entry: entry,
                _queue_permit: permit,
            }),
            _ => Err(Error::Crowded),
        }
    }

    fn enter(&self, of: K) -> Result<QueueEntry<K>, Error> {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(of.clone()).or_insert_with(|| {
            Arc::new(Queue {
                permits: Arc::new(Semaphore::new(self.at_once)),
                waiting: AtomicUsize::new(0),
            })
        });
        if queue.waiting.load(Ordering::Relaxed) >= self.waiting {
            return Err(Error::Crowded);
        }
        queue.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(QueueEntry {
            queue: queue.clone(),
            queues: self.queues.clone(),
            of,
        })
    }
}

/// A call's entry in a queue. When the last entry is dropped, the queue is removed.
struct QueueEntry<K: Eq + Hash> {
    queue: Arc<Queue>,
    queues: Queues<K>,
    of: K,
}

impl<K: Eq + Hash> Drop for QueueEntry<K> {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        if self.queue.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            queues.remove(&self.of);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
