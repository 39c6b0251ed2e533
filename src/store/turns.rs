//! Turns of the changes of one stack. Its lock lets only one go on at a time, so more of them
//! would wait inside transactions, with the connections of other stacks.

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
const AT_ONCE: usize = 2;
/// How many more may wait for their turn, without a connection.
const WAITING: usize = 100;
/// How long they wait, at most; less than a call may take, so that the caller is told why.
const WAIT_FOR: Duration = Duration::from_secs(4);

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

/// The lines before all stacks.
#[derive(Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Of, Arc<Line>>>>);

/// A turn, over when this is dropped.
pub(super) struct Turn {
    _place: Place,
    _turn: OwnedSemaphorePermit,
}

impl Turns {
    /// Waits for a turn of this stack.
    ///
    /// # Errors
    /// [`Error::Crowded`] where too many wait, or for too long.
    pub async fn take(&self, of: impl Into<Of>) -> Result<Turn, Error> {
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

    fn enter(&self, of: Of) -> Result<Place, Error> {
        let mut lines = lock(&self.0);
        let line = lines.entry(of.clone()).or_insert_with(|| {
            Arc::new(Line {
                turns: Arc::new(Semaphore::new(AT_ONCE)),
                present: AtomicUsize::new(0),
            })
        });
        if line.present.load(Ordering::Relaxed) >= AT_ONCE + WAITING {
            return Err(Error::Crowded);
        }
        line.present.fetch_add(1, Ordering::Relaxed);
        Ok(Place {
            line: line.clone(),
            lines: self.0.clone(),
            of,
        })
    }
}

/// A place in a line; the last to leave takes the line along.
struct Place {
    line: Arc<Line>,
    lines: Arc<Mutex<HashMap<Of, Arc<Line>>>>,
    of: Of,
}

impl Drop for Place {
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
