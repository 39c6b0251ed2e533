//! The watch stream. It sends every change that can alter a verdict, in order, and pongs that state
//! how fresh the stream is. A pong is queued behind everything that had been published when the
//! client requested it. Queued events are sent before new batches are received.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError, error::TryRecvError},
    time::{Sleep, sleep, timeout},
};

use super::{
    App, Error,
    change_broadcast::{self, ChangeBatch, WatchChange},
};
use stacktoken_core::facts_cache::Subject;

use crate::{domain::revision::Revision, metrics::Metrics, store::Lost};

/// Time limit for reading the changes that precede the subscription, including the wait for a
/// permit.
const BACKLOG_FOR: Duration = Duration::from_secs(4);
/// Minimum interval between two pongs of a watch, which limits them to 20 per second.
const PONG_EVERY: Duration = Duration::from_millis(50);

/// Revisions sent with every event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRevisions {
    /// Every change up to this revision has been sent. A client that reconnects resumes from it.
    pub resume: Revision,
    /// Highest revision of any change that was sent or that precedes the watch.
    pub highest: Revision,
}

/// An event that is sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A changed subject, whose facts the client must evict from its cache.
    Changed(Subject, EventRevisions),
    /// A pong with the client's nonce and an age: every change that was acknowledged longer ago
    /// than this has been sent.
    Pong(u64, Duration, EventRevisions),
}

/// An event waiting to be sent.
#[derive(Clone, Copy)]
enum PendingEvent {
    Change(WatchChange),
    Pong {
        nonce: u64,
        /// Every change that was acknowledged before this instant is sent ahead of this pong.
        since: Duration,
        /// Position up to which every change is sent ahead of this pong.
        resume: i64,
    },
}

/// The stream of one watcher.
pub struct Watch {
    app: Arc<App>,
    batches: broadcast::Receiver<ChangeBatch>,
    pending: VecDeque<PendingEvent>,
    /// Nonce of the latest unanswered ping.
    ping: Option<u64>,
    /// Timer that runs until the next pong may be sent.
    pause: Option<Pin<Box<Sleep>>>,
    epoch: i64,
    resume: i64,
    highest: i64,
    _counted: Counted,
}

impl App {
    /// Starts a watch, from a given revision or from now on.
    ///
    /// # Errors
    /// [`Error::NotFresh`] while this replica cannot follow the change log; [`Error::WatchUnknown`]
    /// or [`Error::RevisionPurged`] if `from` cannot be used.
    pub async fn watch(self: &Arc<Self>, from: Option<Revision>) -> Result<Watch, Error> {
        // Subscribes before it reads the backlog, so that a change that is too late for the backlog
        // arrives in a batch.
        let (batches, published) = self.hub.subscribe().ok_or(Error::NotFresh)?;
        self.freshness.published_since().ok_or(Error::NotFresh)?;
        let position = from.map(|from| from.position);
        let read = async {
            let _room = self.hub.backlogs.acquire().await;
            self.store.read_backlog(position, &published.cursor).await
        };
        let history = timeout(BACKLOG_FOR, read).await;
        let history = history.map_err(|_| Error::NotFresh)??;
        let (epoch, complete) = (history.next.epoch(), history.next.position());
        if from.is_some_and(|from| from.epoch != epoch || from.position > complete) {
            return Err(Error::WatchUnknown);
        }
        let changes = history.changes.map_err(|lost| match lost {
            // The database that answered is not the one that the poller follows, for example after
            // a failover. The next poll will detect the failover.
            Lost::Elsewhere => Error::NotFresh,
            Lost::TooMany => Error::RevisionPurged,
        })?;
        let resume = position.unwrap_or(history.resume);
        let backlog = change_broadcast::watch_changes(&changes, complete, resume, |_| true);
        Ok(Watch {
            app: self.clone(),
            batches,
            pending: backlog.into_iter().map(PendingEvent::Change).collect(),
            ping: None,
            pause: None,
            epoch,
            resume,
            // Includes changes that are not sent because they precede the watch. Otherwise the
            // client could cache an answer from before such a change, and no event would ever
            // correct it.
            highest: history.newest.max(resume),
            _counted: Counted::new(self.metrics.clone()),
        })
    }

    /// Ends all watches, because this replica stops.
    pub fn close_watches(&self) {
        self.hub.closing.cancel();
    }

    /// Waits until `close_watches` is called.
    pub async fn watches_closed(&self) {
        self.hub.closing.cancelled().await;
    }
}

impl Watch {
    /// Requests a pong. If several pings are pending, only the latest is answered.
    pub const fn ping(&mut self, nonce: u64) {
        self.ping = Some(nonce);
    }

    /// Returns the next event. This is cancel safe: no event is lost if the future is dropped.
    ///
    /// # Errors
    /// [`Error::NotFresh`], [`Error::WatchLagged`], [`Error::WatchUnknown`] or
    /// [`Error::RevisionPurged`]. After any of them, the watch is over.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(next) = self.pending.pop_front() {
                return Ok(self.event(next));
            }
            if let (Some(nonce), None) = (self.ping, &self.pause) {
                self.answer(nonce)?;
                continue;
            }
            tokio::select! {
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.queue_changes(&batch)?,
                    Err(RecvError::Lagged(_)) => return Err(self.lagged()),
                    // Cannot happen, because `self.app` owns the sender.
                    Err(RecvError::Closed) => return Err(Error::NotFresh),
                },
                () = pause_over(&mut self.pause), if self.ping.is_some() => {}
            }
        }
    }

    /// Queues a pong behind every change that its values cover.
    fn answer(&mut self, nonce: u64) -> Result<(), Error> {
        // `since` and `resume` must be read before the batches are drained. Every change that they
        // cover was published before they were set, so draining then queues all these changes.
        let since = self
            .app
            .freshness
            .published_since()
            .ok_or(Error::NotFresh)?;
        let resume = self
            .app
            .hub
            .published()
            .map_or(0, |published| published.resume);
        loop {
            match self.batches.try_recv() {
                Ok(batch) => self.queue_changes(&batch)?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => return Err(self.lagged()),
            }
        }
        self.pending.push_back(PendingEvent::Pong {
            nonce,
            since,
            resume,
        });
        self.ping = None;
        Ok(())
    }

    fn queue_changes(&mut self, batch: &ChangeBatch) -> Result<(), Error> {
        match batch {
            ChangeBatch::Changes(changes) => {
                let changes = changes.iter().copied().map(PendingEvent::Change);
                self.pending.extend(changes);
                Ok(())
            }
            ChangeBatch::Lost(Lost::Elsewhere) => Err(Error::WatchUnknown),
            ChangeBatch::Lost(Lost::TooMany) => Err(Error::RevisionPurged),
        }
    }

    fn event(&mut self, next: PendingEvent) -> WatchEvent {
        match next {
            PendingEvent::Change(change) => {
                self.resume = self.resume.max(change.resume);
                self.highest = self.highest.max(change.position);
                self.app.metrics.watch_changes.inc();
                WatchEvent::Changed(change.subject, self.revisions())
            }
            PendingEvent::Pong {
                nonce,
                since,
                resume,
            } => {
                self.resume = self.resume.max(resume);
                self.pause = Some(Box::pin(sleep(PONG_EVERY)));
                let now = self.app.clock.monotonic();
                WatchEvent::Pong(nonce, now.saturating_sub(since), self.revisions())
            }
        }
    }

    fn revisions(&self) -> EventRevisions {
        let at = |position| Revision {
            epoch: self.epoch,
            position,
        };
        EventRevisions {
            resume: at(self.resume),
            highest: at(self.highest),
        }
    }

    fn lagged(&self) -> Error {
        self.app.metrics.watch_lagged.inc();
        Error::WatchLagged
    }
}

async fn pause_over(pause: &mut Option<Pin<Box<Sleep>>>) {
    if let Some(sleeping) = pause {
        sleeping.await;
    }
    *pause = None;
}

/// Counts one watcher in the metrics until it is dropped.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.watches.inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watches.dec();
    }
}
