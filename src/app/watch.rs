//! Watching: every change that can alter a verdict, told in order, and how fresh what was told
//! is. What waits to be told is read before what is new, and a pong is put behind all that was
//! there when it was asked for.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{self, error::RecvError, error::TryRecvError},
    time::{Sleep, sleep, timeout},
};

use super::{
    App, Error,
    hub::{self, Heard, News},
};
use stacktoken_core::facts_cache::Subject;

use crate::{domain::revision::Revision, metrics::Metrics, store::Lost};

/// How long reading what was missed may take, and waiting for it.
const BACKLOG_FOR: Duration = Duration::from_secs(4);
/// How long after a pong the next is sent at the earliest: 20 a second.
const PONG_EVERY: Duration = Duration::from_millis(50);

/// The points that go with everything told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points {
    /// Everything up to here is told.
    pub resume: Revision,
    /// The highest point that was told of.
    pub highest: Revision,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something to forget.
    Changed(Subject, Points),
    /// The answer to a ping: by its nonce, how long ago everything acknowledged was told.
    Pong(u64, Duration, Points),
}

/// What waits to be told.
#[derive(Clone, Copy)]
enum Waiting {
    Change(Heard),
    Pong {
        nonce: u64,
        /// Everything acknowledged before is told by then.
        since: Duration,
        /// And everything up to here.
        resume: i64,
    },
}

/// One who watches.
pub struct Watch {
    app: Arc<App>,
    news: broadcast::Receiver<News>,
    waiting: VecDeque<Waiting>,
    /// The latest ping that is not answered yet.
    ping: Option<u64>,
    /// Until when no pong is sent.
    rest: Option<Pin<Box<Sleep>>>,
    epoch: i64,
    resume: i64,
    highest: i64,
    _counted: Counted,
}

impl App {
    /// Begins to tell of changes: those since a point in the history, or from now on.
    ///
    /// # Errors
    /// [`Error::NotFresh`] where this replica does not hear of changes itself;
    /// [`Error::WatchUnknown`] and [`Error::RevisionPurged`] by the point asked for.
    pub async fn watch(self: &Arc<Self>, from: Option<Revision>) -> Result<Watch, Error> {
        // Before the history is read: what that does not see yet will be in the news.
        let (news, stand) = self.hub.subscribe().ok_or(Error::NotFresh)?;
        self.freshness.told_since().ok_or(Error::NotFresh)?;
        let position = from.map(|from| from.position);
        let read = async {
            let _room = self.hub.backlogs.acquire().await;
            self.store.read_backlog(position, &stand.cursor).await
        };
        let history = timeout(BACKLOG_FOR, read).await;
        let history = history.map_err(|_| Error::NotFresh)??;
        let (epoch, complete) = (history.next.epoch(), history.next.position());
        if from.is_some_and(|from| from.epoch != epoch || from.position > complete) {
            return Err(Error::WatchUnknown);
        }
        let changes = history.changes.map_err(|lost| match lost {
            // The feed has not come upon the other history yet.
            Lost::Elsewhere => Error::NotFresh,
            Lost::Untold => Error::RevisionPurged,
        })?;
        let resume = position.unwrap_or(history.resume);
        let backlog = hub::heard(&changes, complete, resume, |_| true);
        Ok(Watch {
            app: self.clone(),
            news,
            waiting: backlog.into_iter().map(Waiting::Change).collect(),
            ping: None,
            rest: None,
            epoch,
            resume,
            // Also what is not told of, since it was there before: an answer that lacks it
            // would never be corrected.
            highest: history.newest.max(resume),
            _counted: Counted::new(self.metrics.clone()),
        })
    }

    /// Ends all who watch, since this replica is stopping.
    pub fn close_watches(&self) {
        self.hub.closing.cancel();
    }

    /// Returns when those who watch are to end.
    pub async fn watches_closed(&self) {
        self.hub.closing.cancelled().await;
    }
}

impl Watch {
    /// Asks for a pong. Where several wait, the latest is answered.
    pub const fn ping(&mut self, nonce: u64) {
        self.ping = Some(nonce);
    }

    /// What is told next. Nothing is lost where this is given up and called again.
    ///
    /// # Errors
    /// [`Error::WatchLagged`], [`Error::WatchUnknown`] or [`Error::RevisionPurged`], after
    /// which there is no more.
    pub async fn next(&mut self) -> Result<Told, Error> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Ok(self.tell(next));
            }
            if let (Some(nonce), None) = (self.ping, &self.rest) {
                self.answer(nonce)?;
                continue;
            }
            tokio::select! {
                news = self.news.recv() => match news {
                    Ok(news) => self.hear(&news)?,
                    Err(RecvError::Lagged(_)) => return Err(self.lagged()),
                    // The hub lives as long as the use cases, which are held here.
                    Err(RecvError::Closed) => return Err(Error::NotFresh),
                },
                () = rested(&mut self.rest), if self.ping.is_some() => {}
            }
        }
    }

    /// Puts a pong behind everything that it vouches for.
    fn answer(&mut self, nonce: u64) -> Result<(), Error> {
        // Before the news are drained: whatever these vouch for was published before they
        // were set.
        let since = self.app.freshness.told_since().ok_or(Error::NotFresh)?;
        let resume = self.app.hub.stand().map_or(0, |stand| stand.resume);
        loop {
            match self.news.try_recv() {
                Ok(news) => self.hear(&news)?,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => return Err(self.lagged()),
            }
        }
        self.waiting.push_back(Waiting::Pong {
            nonce,
            since,
            resume,
        });
        self.ping = None;
        Ok(())
    }

    fn hear(&mut self, news: &News) -> Result<(), Error> {
        match news {
            News::Changes(changes) => {
                let changes = changes.iter().copied().map(Waiting::Change);
                self.waiting.extend(changes);
                Ok(())
            }
            News::Lost(Lost::Elsewhere) => Err(Error::WatchUnknown),
            News::Lost(Lost::Untold) => Err(Error::RevisionPurged),
        }
    }

    fn tell(&mut self, next: Waiting) -> Told {
        match next {
            Waiting::Change(heard) => {
                self.resume = self.resume.max(heard.resume);
                self.highest = self.highest.max(heard.position);
                self.app.metrics.watch_changes.inc();
                Told::Changed(heard.subject, self.points())
            }
            Waiting::Pong {
                nonce,
                since,
                resume,
            } => {
                self.resume = self.resume.max(resume);
                self.rest = Some(Box::pin(sleep(PONG_EVERY)));
                let now = self.app.clock.monotonic();
                Told::Pong(nonce, now.saturating_sub(since), self.points())
            }
        }
    }

    fn points(&self) -> Points {
        let at = |position| Revision {
            epoch: self.epoch,
            position,
        };
        Points {
            resume: at(self.resume),
            highest: at(self.highest),
        }
    }

    fn lagged(&self) -> Error {
        self.app.metrics.watch_lagged.inc();
        Error::WatchLagged
    }
}

async fn rested(rest: &mut Option<Pin<Box<Sleep>>>) {
    if let Some(sleeping) = rest {
        sleeping.await;
    }
    *rest = None;
}

/// One in the count of those who watch.
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
