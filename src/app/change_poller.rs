//! Polls the change log at least four times per freshness bound and at every notification, evicts
//! what others changed, publishes to watchers, and commits heartbeats as often to prove that the
//! database is the primary. On SQLite there are no other writers, so polls only serve watchers.

use std::{collections::HashSet, fmt, future::pending, mem, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    App,
    change_broadcast::{self, Published},
};
use crate::{
    domain::{comparison::Comparison, origin::Origin},
    store::{Change, Cursor, Error, History},
};

/// The pause between two heartbeats, however often callers ask for one. Shorter than the retries of a
/// change that has met another database.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Delay before listening again after a failure.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl App {
    /// Polls the change log for the lifetime of the process.
    pub async fn keep_reading(&self) {
        let shared = self.store.is_shared();
        if !shared {
            self.freshness.note_own(self.last_position().await);
        }
        let mut reader = Reader::default();
        let mut trouble = Trouble::new("the change log is not read");
        loop {
            // A poll counts only once a database is trusted.
            self.origin_known().await;
            let started = self.clock.monotonic();
            let read = self.store.read_history(reader.since.as_ref());
            match timeout(self.freshness.bound(), read).await {
                Ok(Ok(history)) => {
                    trouble.is_over();
                    self.note_history(&mut reader, history, started).await;
                }
                Ok(Err(error)) => self.note_failure(&mut trouble, &error).await,
                Err(_) => self.note_timeout(&mut trouble).await,
            }
            tokio::select! {
                () = self.nudged.notified() => {}
                () = sleep(self.freshness.bound() / 4) => {}
            }
        }
    }

    async fn origin_known(&self) {
        let mut proofs = self.freshness.proofs();
        while !self.freshness.has_origin() {
            // Cannot fail: `self` owns the sender.
            let _ = proofs.changed().await;
        }
    }

    /// Applies a poll, if it is from the trusted database.
    async fn note_history(&self, reader: &mut Reader, history: History, started: Duration) {
        let origin = history.next.origin();
        if !self.store.is_shared() && self.freshness.evidence(origin, started).is_none() {
            // No other process can hold the SQLite file, so another change log was written to it.
            self.trust(origin.clone(), started);
        }
        let Some(evidence) = self.freshness.evidence(origin, started) else {
            return self.ground.doubt().await;
        };
        // The position of a change, not of a transaction without one: such an id can be reused.
        let position = history.resume;
        reader.apply(self, history);
        // Last: the lease is renewed only after everything is evicted and published.
        self.freshness.note_read(evidence, position);
    }

    /// Commits heartbeats for the lifetime of the process.
    pub async fn keep_beating(&self) {
        if !self.store.is_shared() {
            return pending().await;
        }
        let mut trouble = Trouble::new("no heartbeat is committed");
        let mut is_doubted = false;
        loop {
            let started = self.clock.monotonic();
            let comparison = Comparison::begin(self.clock.as_ref());
            match timeout(self.freshness.bound(), self.store.beat(self.clock.now())).await {
                Ok(Ok(beat)) => {
                    if trouble.is_over() {
                        self.read_only.look_now();
                    }
                    // First: later answers are judged by this clock.
                    self.compare(&comparison, beat.clock);
                    let is_same = self.note_beat(beat.origin, started).await;
                    if mem::take(&mut is_doubted) && is_same {
                        // The connections of changes lead elsewhere.
                        self.store.renew_connections().await;
                    }
                }
                Ok(Err(error)) => self.note_failure(&mut trouble, &error).await,
                Err(_) => self.note_timeout(&mut trouble).await,
            }
            let now = self.clock.monotonic();
            let age = self.freshness.view(now).lease.age(now);
            let age = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
            self.metrics.lease_age.set(age);
            let at_least = sleep(SHORTEST_PAUSE);
            tokio::select! {
                () = self.freshness.doubted.notified() => {}
                () = self.store.mistrusted() => is_doubted = true,
                () = sleep(self.freshness.bound() / 4) => {}
            }
            // Callers cannot make heartbeats follow each other without a pause.
            at_least.await;
        }
    }

    /// Notes a heartbeat, and trusts its database if it is another one. Only a heartbeat can do
    /// that, because a fenced primary cannot commit one. Returns whether the database is the same.
    async fn note_beat(&self, origin: Origin, started: Duration) -> bool {
        if let Some(evidence) = self.freshness.evidence(&origin, started) {
            self.freshness.note_beat(evidence);
            return true;
        }
        let first = !self.freshness.has_origin();
        self.trust(origin, started);
        if !first {
            self.metrics.origin_changes.inc();
            // Existing connections may lead to the former database.
            self.store.replace_connections().await;
            self.left.notify_one();
        }
        self.nudged.notify_one();
        false
    }

    fn trust(&self, origin: Origin, started: Duration) {
        tracing::info!(?origin, "this database is trusted from now on");
        self.store.adopt_epoch(origin.epoch);
        self.store.trust(&origin);
        self.freshness.adopt(origin, started, || self.cache.clear());
    }

    /// Listens for change notifications for the lifetime of the process.
    pub async fn keep_listening(&self) {
        let Some(mut listener) = self.store.listener() else {
            return pending().await;
        };
        loop {
            let hint = tokio::select! {
                hint = listener.hint() => hint,
                // The listener may be connected to the former database.
                () = self.left.notified() => {
                    listener.leave();
                    continue;
                }
            };
            match hint {
                Ok(()) => self.nudged.notify_one(),
                Err(error) => {
                    tracing::debug!(%error, "not listening; the history is read without hints");
                    sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    async fn note_failure(&self, trouble: &mut Trouble, error: &Error) {
        trouble.has(&error);
        // A connection to another database, or to one without these tables, stays one.
        if error.is_lost_connection() || matches!(error, Error::Foreign | Error::Database(_)) {
            self.store.renew_connections().await;
        }
    }

    async fn note_timeout(&self, trouble: &mut Trouble) {
        trouble.has(&"no answer within the freshness bound");
        self.store.renew_silent_connections().await;
    }

    async fn last_position(&self) -> i64 {
        self.store.last_position().await.unwrap_or(i64::MIN)
    }
}

/// A recurring failure; logged once when it begins and once when it ends.
struct Trouble {
    what: &'static str,
    told: bool,
}

impl Trouble {
    const fn new(what: &'static str) -> Self {
        Self { what, told: false }
    }

    fn has(&mut self, error: &dyn fmt::Display) {
        if !self.told {
            tracing::warn!(%error, "{}", self.what);
        }
        self.told = true;
    }

    /// Ends the failure; returns whether there was one.
    fn is_over(&mut self) -> bool {
        if self.told {
            tracing::info!("over: {}", self.what);
        }
        std::mem::take(&mut self.told)
    }
}

/// State of the change-log poll.
#[derive(Default)]
struct Reader {
    since: Option<Cursor>,
    /// Position up to which every change is published.
    resume: i64,
    /// Highest change number applied; used only when a test disables `commit_order`.
    highest: i64,
    /// Changes already applied that are read again while an older transaction is in progress.
    seen: HashSet<i64>,
}

impl Reader {
    fn apply(&mut self, app: &App, history: History) {
        let moved = self.since.as_ref() != Some(&history.next);
        let stand = Published {
            cursor: history.next.clone(),
            resume: history.resume,
        };
        match &history.changes {
            Err(lost) => {
                // Without other writers, every change is applied when it is made.
                if app.store.is_shared() {
                    app.cache.clear();
                }
                self.seen.clear();
                app.hub.publish(Err(*lost), stand);
            }
            Ok(changes) => {
                self.apply_each(app, changes, stand);
                let numbers = changes.iter().map(|change| change.id);
                self.highest = numbers.fold(self.highest, i64::max);
                if moved {
                    self.seen.clear();
                }
                self.seen.extend(changes.iter().map(|change| change.id));
            }
        }
        self.resume = history.resume;
        self.since = Some(history.next);
    }

    /// Evicts what others changed, and publishes every new change to watchers.
    fn apply_each(&self, app: &App, changes: &[Change], stand: Published) {
        let is_new = |change: &Change| {
            let late = !app.safeguards.commit_order && change.id <= self.highest;
            !self.seen.contains(&change.id) && !late
        };
        for change in changes.iter().filter(|change| is_new(change)) {
            apply(app, change);
        }
        let complete = stand.cursor.position();
        let heard = change_broadcast::heard(changes, complete, self.resume, is_new);
        app.hub.publish(Ok(&heard), stand);
    }
}

fn apply(app: &App, change: &Change) {
    if change.harmless {
        return;
    }
    match change.token {
        Some(uid) => app.cache.evict_token(uid),
        None => app.cache.evict_stack(change.stack),
    }
    // On SQLite the eviction happened at commit. This one is a second line of defence, for a change
    // that an I/O error hid and WAL recovery restored.
    if app.store.is_shared() {
        app.metrics.evictions.inc();
        let seen_after = app.clock.now().since(change.changed_at);
        app.metrics
            .revoke_visibility
            .observe(seen_after.as_secs_f64());
    }
}
