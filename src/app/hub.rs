//! Where the feed tells those who watch. It never waits for any of them: who falls behind finds
//! what was not yet read gone. The argument for the order of things stands in
//! docs/architecture.md.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::store::{Change, Cursor, Lost};
use stacktoken_core::facts_cache::Subject;

/// How many changes are passed on as one.
const TOGETHER: usize = 64;
/// How many may read what they have missed at once.
const BACKLOGS: usize = 4;

/// A change that can alter a verdict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub subject: Subject,
    /// Its own point in the history.
    pub position: i64,
    /// Everything up to here is told when this is.
    pub resume: i64,
}

/// What goes to all who watch.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// Changes, in order.
    Changes(Arc<[Heard]>),
    /// Changes were missed, and cannot be told.
    Lost(Lost),
}

/// Up to where the history is told.
#[derive(Clone, Debug)]
pub(super) struct Stand {
    pub cursor: Cursor,
    pub resume: i64,
}

pub(super) struct Hub {
    news: broadcast::Sender<News>,
    stand: Mutex<Option<Stand>>,
    /// Room for those who read what they have missed.
    pub backlogs: Semaphore,
    /// Ends all that is told.
    pub closing: CancellationToken,
}

impl Hub {
    /// `queue`: how many pieces of news wait for the slowest.
    pub fn new(queue: usize) -> Self {
        Self {
            news: broadcast::Sender::new(queue.max(1)),
            stand: Mutex::default(),
            backlogs: Semaphore::new(BACKLOGS),
            closing: CancellationToken::new(),
        }
    }

    /// What happens from now on, and up to where it was told before; `None` until the history
    /// was read once. In this order: what is published in between is in both.
    pub fn subscribe(&self) -> Option<(broadcast::Receiver<News>, Stand)> {
        let news = self.news.subscribe();
        Some((news, self.stand()?))
    }

    pub fn stand(&self) -> Option<Stand> {
        self.lock().clone()
    }

    /// Tells what a reading found. Who calls this notes the reading only afterwards.
    pub fn publish(&self, found: Result<&[Heard], Lost>, stand: Stand) {
        // Nobody there to hear it is no fault.
        match found {
            Ok(changes) => {
                for some in changes.chunks(TOGETHER) {
                    let _ = self.news.send(News::Changes(some.into()));
                }
            }
            Err(lost) => {
                let _ = self.news.send(News::Lost(lost));
            }
        }
        *self.lock() = Some(stand);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stand>> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of a reading that matter, each with the point that is reached when it is told.
/// `complete`: up to where the reading saw everything; `resume`: what was reached before.
pub(super) fn heard(
    changes: &[Change],
    complete: i64,
    mut resume: i64,
    fits: impl Fn(&Change) -> bool,
) -> Vec<Heard> {
    let mut heard = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        let position = change.position;
        // One transaction may have made several changes: it is told with the last of them.
        let more = changes
            .get(at + 1)
            .is_some_and(|next| next.position == position);
        if !more && position <= complete {
            resume = resume.max(position);
        }
        if !change.harmless && fits(change) {
            let subject = match change.token {
                Some(uid) => Subject::Token(uid),
                None => Subject::Stack(change.stack),
            };
            heard.push(Heard {
                subject,
                position,
                resume,
            });
        }
    }
    heard
}
