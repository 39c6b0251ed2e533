//! Publishes changes from the poller to all watchers. Publishing never waits for a watcher: a
//! watcher that falls behind loses unread batches, and its stream ends with an error.
//! docs/architecture.md explains the order of the steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::store::{Change, Cursor, Lost};
use stacktoken_core::facts_cache::Subject;

/// Maximum number of changes per batch.
const TOGETHER: usize = 64;
/// Maximum number of watchers that read their backlog at the same time.
const BACKLOGS: usize = 4;

/// A change that can alter a verdict.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchChange {
    pub subject: Subject,
    /// Position of this change in the change log.
    pub position: i64,
    /// Position up to which every change has been sent once this change has been sent.
    pub resume: i64,
}

/// A message to all watchers.
#[derive(Clone, Debug)]
pub(super) enum ChangeBatch {
    /// Changes, in the order of the change log.
    Changes(Arc<[WatchChange]>),
    /// Changes were missed and cannot be listed one by one.
    Lost(Lost),
}

/// How far the change log has been published to the watchers.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub cursor: Cursor,
    pub resume: i64,
}

pub(super) struct ChangeBroadcast {
    sender: broadcast::Sender<ChangeBatch>,
    published: Mutex<Option<Published>>,
    /// Permits for reading the changes that precede a subscription.
    pub backlogs: Semaphore,
    /// Cancelled to end all watches.
    pub closing: CancellationToken,
}

impl ChangeBroadcast {
    /// Creates the broadcast; `queue` is the number of batches kept for the slowest watcher.
    pub fn new(queue: usize) -> Self {
        Self {
            sender: broadcast::Sender::new(queue.max(1)),
            published: Mutex::default(),
            backlogs: Semaphore::new(BACKLOGS),
            closing: CancellationToken::new(),
        }
    }

    /// Subscribes to new batches, and returns how far the change log has been published; `None`
    /// before the first poll. Subscribes before it reads the position: a batch that is published in
    /// between is received although the position includes it, but no batch is missed.
    pub fn subscribe(&self) -> Option<(broadcast::Receiver<ChangeBatch>, Published)> {
        let sender = self.sender.subscribe();
        Some((sender, self.published()?))
    }

    pub fn published(&self) -> Option<Published> {
        self.lock().clone()
    }

    /// Publishes the result of a poll. The caller must renew the lease only afterwards.
    pub fn publish(&self, found: Result<&[WatchChange], Lost>, published: Published) {
        // Sending fails if there are no watchers, which is not an error.
        match found {
            Ok(changes) => {
                for some in changes.chunks(TOGETHER) {
                    let _ = self.sender.send(ChangeBatch::Changes(some.into()));
                }
            }
            Err(lost) => {
                let _ = self.sender.send(ChangeBatch::Lost(lost));
            }
        }
        *self.lock() = Some(published);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Published>> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the changes of a poll that can alter a verdict, each with its resume position. The poll
/// found every change up to `complete`. `resume` is the position that was reached before the poll.
pub(super) fn watch_changes(
    changes: &[Change],
    complete: i64,
    mut resume: i64,
    fits: impl Fn(&Change) -> bool,
) -> Vec<WatchChange> {
    let mut watch_changes = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        let position = change.position;
        // One transaction may have made several changes at the same position. Only the last of them
        // advances `resume`.
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
            watch_changes.push(WatchChange {
                subject,
                position,
                resume,
            });
        }
    }
    watch_changes
}
