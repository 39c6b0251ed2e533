//! Polls the change log at least four times per freshness bound, and at every notification. Each
//! poll evicts from the cache what other replicas changed, and publishes the changes to the
//! watchers. This module also commits heartbeats at the same interval. They prove that the database
//! is the primary. On SQLite, only this process writes, so only the watchers need the polls.

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

/// Shortest pause between two heartbeats, however often callers request one. It is shorter than the
/// interval at which a change is retried if the database that it reached is not trusted.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Delay before the listener reconnects after a failure.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl App {
    /// Polls the change log for the lifetime of the process.
    pub async fn poll_change_log(&self) {
        let shared = self.store.has_other_writers();
        if !shared {
            self.freshness.note_own(self.last_position().await);
        }
        let mut reader = Reader::default();
        let mut trouble = RecurringFailure::new("the change log is not read");
        loop {
            // Before a database is trusted, a poll would prove nothing.
            self.origin_known().await;
            let started = self.clock.monotonic();
            let read = self.store.read_history(reader.since.as_ref());
            match timeout(self.freshness.bound(), read).await {
                Ok(Ok(history)) => {
                    trouble.record_success();
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
            // Cannot fail, because `self` owns the sender.
            let _ = proofs.changed().await;
        }
    }

    /// Applies the result of a poll, if the trusted database answered it.
    async fn note_history(&self, reader: &mut Reader, history: History, started: Duration) {
        let origin = history.next.origin();
        if !self.store.has_other_writers() && self.freshness.evidence(origin, started).is_none() {
            // No other process can hold the SQLite file open, so the epoch differs because another
            // change log was written into the file.
            self.trust(origin.clone(), started);
        }
        let Some(evidence) = self.freshness.evidence(origin, started) else {
            return self.ground.distrust_database().await;
        };
        // `resume` is the position of a change. The id of a transaction without a change cannot be
        // used instead, because it can be assigned again after a crash or a failover.
        let position = history.resume;
        reader.apply(self, history);
        // Must come last: the lease may be renewed only after everything is evicted and published.
        self.freshness.note_read(evidence, position);
    }

    /// Commits heartbeats for the lifetime of the process.
    pub async fn send_heartbeats(&self) {
        if !self.store.has_other_writers() {
            return pending().await;
        }
        let mut trouble = RecurringFailure::new("no heartbeat is committed");
        let mut is_doubted = false;
        loop {
            let started = self.clock.monotonic();
            let comparison = Comparison::begin(self.clock.as_ref());
            match timeout(self.freshness.bound(), self.store.beat(self.clock.now())).await {
                Ok(Ok(beat)) => {
                    if trouble.record_success() {
                        self.read_only.look_now();
                    }
                    // The clocks must be compared before the heartbeat is noted. From then on, the
                    // heartbeat permits answers, whose expiry is judged with this clock.
                    self.compare(&comparison, beat.clock);
                    let is_same = self.note_beat(beat.origin, started).await;
                    if mem::take(&mut is_doubted) && is_same {
                        // The trusted database is unchanged, so the connection of the change leads
                        // to another database.
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
            // Enforces the pause even if callers keep requesting heartbeats.
            at_least.await;
        }
    }

    /// Notes a heartbeat. If a database other than the trusted one committed it, trusts that
    /// database from now on. Only a heartbeat can change the trusted database, because a fenced
    /// primary cannot commit one. Returns whether the trusted database is still the same.
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
    pub async fn listen_for_changes(&self) {
        let Some(mut listener) = self.store.listener() else {
            return pending().await;
        };
        loop {
            let hint = tokio::select! {
                hint = listener.hint() => hint,
                // The listener may still be connected to the formerly trusted database.
                () = self.left.notified() => {
                    listener.leave();
                    continue;
                }
            };
            match hint {
                Ok(()) => self.nudged.notify_one(),
                Err(error) => {
                    tracing::debug!(%error, "LISTEN failed; polling the change log at intervals only");
                    sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    async fn note_failure(&self, trouble: &mut RecurringFailure, error: &Error) {
        trouble.record_failure(&error);
        // A connection that leads to another database, or to a database without our tables, does
        // not recover by itself.
        if error.is_lost_connection() || matches!(error, Error::Foreign | Error::Database(_)) {
            self.store.renew_connections().await;
        }
    }

    async fn note_timeout(&self, trouble: &mut RecurringFailure) {
        trouble.record_failure(&"no answer within the freshness bound");
        self.store.renew_silent_connections().await;
    }

    async fn last_position(&self) -> i64 {
        self.store.last_position().await.unwrap_or(i64::MIN)
    }
}

/// Logs a failure that may recur at every attempt only when it begins and when it ends.
struct RecurringFailure {
    what: &'static str,
    logged: bool,
}

impl RecurringFailure {
    const fn new(what: &'static str) -> Self {
        Self {
            what,
            logged: false,
        }
    }

    fn record_failure(&mut self, error: &dyn fmt::Display) {
        if !self.logged {
            tracing::warn!(%error, "{}", self.what);
        }
        self.logged = true;
    }

    /// Records a success. If it ends a series of failures, logs it and returns `true`.
    fn record_success(&mut self) -> bool {
        if self.logged {
            tracing::info!("over: {}", self.what);
        }
        std::mem::take(&mut self.logged)
    }
}

/// State of the poller between two polls.
#[derive(Default)]
struct Reader {
    since: Option<Cursor>,
    /// Position up to which every change is published.
    resume: i64,
    /// Highest number of an applied change. It is used only if a test disables the `commit_order`
    /// safeguard.
    highest: i64,
    /// Numbers of the applied changes that the next poll may return again, because an older
    /// transaction is still in progress.
    seen: HashSet<i64>,
}

impl Reader {
    fn apply(&mut self, app: &App, history: History) {
        let moved = self.since.as_ref() != Some(&history.next);
        let published = Published {
            cursor: history.next.clone(),
            resume: history.resume,
        };
        match &history.changes {
            Err(lost) => {
                // If no other process writes, every change is applied when it is made, so the cache
                // stays correct.
                if app.store.has_other_writers() {
                    app.cache.clear();
                }
                self.seen.clear();
                app.hub.publish(Err(*lost), published);
            }
            Ok(changes) => {
                self.apply_each(app, changes, published);
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

    /// Evicts the subjects of new changes from the cache, and publishes these changes to the
    /// watchers.
    fn apply_each(&self, app: &App, changes: &[Change], published: Published) {
        let is_new = |change: &Change| {
            let late = !app.safeguards.commit_order && change.id <= self.highest;
            !self.seen.contains(&change.id) && !late
        };
        for change in changes.iter().filter(|change| is_new(change)) {
            apply(app, change);
        }
        let complete = published.cursor.position();
        let sent = change_broadcast::watch_changes(changes, complete, self.resume, is_new);
        app.hub.publish(Ok(&sent), published);
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
    // On SQLite, the eviction already happened at commit. This second eviction is for a change
    // whose commit seemed to fail with an I/O error but was restored by WAL recovery.
    if app.store.has_other_writers() {
        app.metrics.evictions.inc();
        let seen_after = app.clock.now().since(change.changed_at);
        app.metrics
            .revoke_visibility
            .observe(seen_after.as_secs_f64());
    }
}
