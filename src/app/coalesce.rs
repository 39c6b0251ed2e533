//! Combines lookups of single digests into one statement. At most [`AT_ONCE`] statements run at the
//! same time. A lookup starts its statement at once if fewer are running. Otherwise it waits, and
//! the next statement reads the digests of all waiting lookups. A lookup never joins a statement
//! that has begun, so its answer is always read after the caller asked for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    domain::secret::Digest,
    store::{self, Lookup, Store},
    telemetry::context::Place,
};

/// Maximum number of statements that run at the same time. With more, each statement would combine
/// fewer lookups. With fewer, the database would be idle while a result is on its way.
const AT_ONCE: usize = 4;
/// Maximum number of digests in one statement.
const MOST: usize = 40;

/// The result of the lookup of one digest. The error is shared, because one failed statement can be
/// the result of several lookups.
pub(super) type Found = Result<Lookup, Arc<store::Error>>;

/// Reads many digests with one statement.
pub(super) trait ReadTogether: Send + Sync + 'static {
    /// The result for one digest.
    type Answer: Send + 'static;

    /// Returns one answer for each digest, in the same order.
    fn read(&self, digests: &[Digest]) -> impl Future<Output = Vec<Self::Answer>> + Send;
}

impl ReadTogether for Store {
    type Answer = Found;

    async fn read(&self, digests: &[Digest]) -> Vec<Found> {
        if let [one] = digests {
            return vec![self.look_up(one).await.map_err(Arc::new)];
        }
        match self.look_up_each(digests).await {
            Ok(each) => each,
            // One row may have made the whole statement fail, for example because its page is
            // damaged. Reading the digests one by one confines the error to its digest.
            Err(store::Error::Database(_)) => {
                let mut each = Vec::with_capacity(digests.len());
                for digest in digests {
                    each.push(self.look_up(digest).await.map_err(Arc::new));
                }
                each
            }
            Err(error) => {
                let error = Arc::new(error);
                digests.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }
}

/// A caller that waits for its digest to be read.
struct Waiting<A> {
    digest: Digest,
    answer: oneshot::Sender<A>,
    /// The caller's trace context. The statement is traced as part of its first caller's trace.
    place: Place,
}

struct Queue<A> {
    waiting: VecDeque<Waiting<A>>,
    running: usize,
}

/// Combines concurrent reads of single digests into statements.
pub(super) struct Coalescer<R: ReadTogether> {
    reader: Arc<R>,
    queue: Arc<Mutex<Queue<R::Answer>>>,
    bound: Duration,
}

impl<R: ReadTogether> Clone for Coalescer<R> {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            queue: self.queue.clone(),
            bound: self.bound,
        }
    }
}

impl<R: ReadTogether> Coalescer<R> {
    /// Creates a coalescer that abandons a statement after `bound`.
    pub fn new(reader: Arc<R>, bound: Duration) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            running: 0,
        };
        Self {
            reader,
            queue: Arc::new(Mutex::new(queue)),
            bound,
        }
    }

    /// Reads a digest with a statement that begins after this call. Returns `None` if the statement
    /// was not answered within the bound.
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself within the bound, and only reads"
    )]
    pub async fn read(&self, digest: Digest) -> Option<R::Answer> {
        let (answer, answered) = oneshot::channel();
        let place = Place::here();
        let started = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Waiting {
                digest,
                answer,
                place,
            });
            let starts = queue.running < AT_ONCE;
            queue.running += usize::from(starts);
            starts.then(|| Running::new(self.clone()))
        };
        if let Some(mut running) = started {
            // Runs in a separate task, so that the other callers get their answers even if this
            // caller gives up.
            tokio::spawn(async move { running.serve().await });
        }
        answered.await.ok()
    }
}

/// One of at most [`AT_ONCE`] runners of statements. It is subtracted from `Queue::running` when it
/// ends, at the latest on drop, so even on panic.
struct Running<R: ReadTogether> {
    of: Coalescer<R>,
    /// Whether this runner has already been subtracted.
    is_free: bool,
}

impl<R: ReadTogether> Running<R> {
    const fn new(of: Coalescer<R>) -> Self {
        Self { of, is_free: false }
    }

    /// Runs statements until no caller waits.
    async fn serve(&mut self) {
        while let Some((place, digests, answers)) = self.take() {
            let read = place.within(self.of.reader.read(&digests));
            let Ok(found) = timeout(self.of.bound, read).await else {
                continue;
            };
            for (answer, found) in answers.into_iter().zip(found) {
                // A caller that has given up needs no answer.
                let _ = answer.send(found);
            }
        }
    }

    /// Takes the callers of the next statement from the queue. If no caller waits, ends this runner
    /// under the same lock, so that the next caller starts a new one instead of waiting forever.
    #[expect(clippy::type_complexity, reason = "one row of callers, taken apart")]
    fn take(&mut self) -> Option<(Place, Vec<Digest>, Vec<oneshot::Sender<R::Answer>>)> {
        let mut queue = lock(&self.of.queue);
        queue.waiting.retain(|waiting| !waiting.answer.is_closed());
        let count = queue.waiting.len().min(MOST);
        if count == 0 {
            queue.running -= 1;
            self.is_free = true;
        }
        let mut first = None;
        let (mut digests, mut answers) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for waiting in queue.waiting.drain(..count) {
            first.get_or_insert(waiting.place);
            digests.push(waiting.digest);
            answers.push(waiting.answer);
        }
        first.map(|place| (place, digests, answers))
    }
}

impl<R: ReadTogether> Drop for Running<R> {
    fn drop(&mut self) {
        if !self.is_free {
            lock(&self.of.queue).running -= 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
