//! Hearing of what was changed: reading the history at least four times within the bound and at
//! every hint, throwing out what others changed, telling those who watch, and proving as often
//! that the database is the primary. On SQLite there are no others, only those who watch.

use std::{collections::HashSet, future::pending, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    App,
    hub::{self, Stand},
};
use crate::store::{Change, Cursor, Error, History};

/// How long to wait before listening again after it failed.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

impl App {
    /// Reads the history for as long as the process lives.
    pub async fn keep_reading(&self) {
        let shared = self.store.is_shared();
        if !shared {
            self.freshness.note_own(self.last_position().await);
        }
        let mut reader = Reader::default();
        loop {
            let started = self.clock.monotonic();
            let read = self.store.read_history(reader.since.as_ref());
            match timeout(self.freshness.bound(), read).await {
                Ok(Ok(history)) => {
                    let position = history.next.position();
                    reader.apply(self, history);
                    // Last: only when everything is thrown out and told does the lease say so.
                    if shared {
                        self.freshness.note_read(started, position);
                    } else {
                        self.freshness.note_told(started);
                    }
                }
                Ok(Err(error)) => self.note_failure(&error).await,
                Err(_) => self.store.renew_connections().await,
            }
            tokio::select! {
                () = self.nudged.notified() => {}
                () = sleep(self.freshness.bound() / 4) => {}
            }
        }
    }

    /// Commits a heartbeat for as long as the process lives.
    pub async fn keep_beating(&self) {
        if !self.store.is_shared() {
            return pending().await;
        }
        loop {
            let started = self.clock.monotonic();
            match timeout(self.freshness.bound(), self.store.beat(self.clock.now())).await {
                Ok(Ok(())) => self.freshness.note_beat(started),
                Ok(Err(error)) => self.note_failure(&error).await,
                Err(_) => self.store.renew_connections().await,
            }
            let age = self.freshness.lease(started).age(self.clock.monotonic());
            let age = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
            self.metrics.lease_age.set(age);
            sleep(self.freshness.bound() / 4).await;
        }
    }

    /// Listens for hints for as long as the process lives.
    pub async fn keep_listening(&self) {
        let Some(mut listener) = self.store.listener() else {
            return pending().await;
        };
        loop {
            match listener.hint().await {
                Ok(()) => self.nudged.notify_one(),
                Err(error) => {
                    tracing::debug!(%error, "not listening; the history is read without hints");
                    sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    async fn note_failure(&self, error: &Error) {
        tracing::debug!(%error, "the history or the primary could not be had");
        if error.is_lost_connection() {
            self.store.renew_connections().await;
        }
    }

    async fn last_position(&self) -> i64 {
        self.store.last_position().await.unwrap_or(i64::MIN)
    }
}

/// Where the reading stands.
#[derive(Default)]
struct Reader {
    since: Option<Cursor>,
    /// Up to where everything was told.
    resume: i64,
    /// The highest number applied; looked at only in a negative control.
    highest: i64,
    /// Changes of transactions that are read again for as long as an older one is at work.
    seen: HashSet<i64>,
}

impl Reader {
    fn apply(&mut self, app: &App, history: History) {
        let moved = self.since.as_ref() != Some(&history.next);
        let stand = Stand {
            cursor: history.next.clone(),
            resume: history.resume,
        };
        match &history.changes {
            Err(lost) => {
                // A change of one's own was applied when it was made, also by a restart.
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

    /// Throws out what others changed, and tells those who watch of all that is new.
    fn apply_each(&self, app: &App, changes: &[Change], stand: Stand) {
        let is_new = |change: &Change| {
            let late = !app.safeguards.commit_order && change.id <= self.highest;
            !self.seen.contains(&change.id) && !late
        };
        for change in changes.iter().filter(|change| is_new(change)) {
            apply(app, change);
        }
        let complete = stand.cursor.position();
        let heard = hub::heard(changes, complete, self.resume, is_new);
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
    // On SQLite the change was made here, and evicted with its commit: this is a second line, for
    // what an I/O error hid and a recovery of the log brought back.
    if app.store.is_shared() {
        app.metrics.evictions.inc();
        let seen_after = app.clock.now().since(change.changed_at);
        app.metrics
            .revoke_visibility
            .observe(seen_after.as_secs_f64());
    }
}
