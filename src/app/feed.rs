//! Hearing of what was changed: reading the history at least four times within the bound and at
//! every hint, throwing out what others changed, telling those who watch, and proving as often
//! that the database is the primary. On SQLite there are no others, only those who watch.

use std::{collections::HashSet, fmt, future::pending, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    App,
    hub::{self, Stand},
};
use crate::{
    domain::{comparison::Comparison, origin::Origin},
    store::{Change, Cursor, Error, History},
};

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
        let mut trouble = Trouble::new("the change log is not read");
        loop {
            // Nothing that is read counts before a database is trusted.
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
            // The sender lives as long as this.
            let _ = proofs.changed().await;
        }
    }

    /// Applies what was read, if it is of the database that is trusted.
    async fn note_history(&self, reader: &mut Reader, history: History, started: Duration) {
        let origin = history.next.origin();
        if !self.store.is_shared() && self.freshness.evidence(origin, started).is_none() {
            // Nobody else can have taken the file: another history was written into it.
            self.trust(origin.clone(), started);
        }
        let Some(evidence) = self.freshness.evidence(origin, started) else {
            return self.ground.doubt().await;
        };
        // Of a change, never of a transaction that left none: its id may be given out again.
        let position = history.resume;
        reader.apply(self, history);
        // Last: only when everything is thrown out and told does the lease say so.
        self.freshness.note_read(evidence, position);
    }

    /// Commits a heartbeat for as long as the process lives.
    pub async fn keep_beating(&self) {
        if !self.store.is_shared() {
            return pending().await;
        }
        let mut trouble = Trouble::new("no heartbeat is committed");
        loop {
            let started = self.clock.monotonic();
            let comparison = Comparison::begin(self.clock.as_ref());
            match timeout(self.freshness.bound(), self.store.beat(self.clock.now())).await {
                Ok(Ok(beat)) => {
                    if trouble.is_over() {
                        self.read_only.look_now();
                    }
                    // First: what is answered from here on is judged by this clock.
                    self.compare(&comparison, beat.clock);
                    self.note_beat(beat.origin, started).await;
                }
                Ok(Err(error)) => self.note_failure(&mut trouble, &error).await,
                Err(_) => self.note_timeout(&mut trouble).await,
            }
            let now = self.clock.monotonic();
            let age = self.freshness.view(now).lease.age(now);
            let age = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
            self.metrics.lease_age.set(age);
            tokio::select! {
                () = self.freshness.doubted.notified() => {}
                () = self.store.mistrusted() => {}
                () = sleep(self.freshness.bound() / 4) => {}
            }
        }
    }

    /// A heartbeat, and nothing else, has a database trusted: it could not be committed on one
    /// that was fenced off.
    async fn note_beat(&self, origin: Origin, started: Duration) {
        if let Some(evidence) = self.freshness.evidence(&origin, started) {
            return self.freshness.note_beat(evidence);
        }
        let first = !self.freshness.has_origin();
        self.trust(origin, started);
        if !first {
            self.metrics.origin_changes.inc();
            // Those at hand may lead to the former one.
            self.store.replace_connections().await;
            self.left.notify_one();
        }
        self.nudged.notify_one();
    }

    fn trust(&self, origin: Origin, started: Duration) {
        tracing::info!(?origin, "this database is trusted from now on");
        self.store.adopt_epoch(origin.epoch);
        self.freshness.adopt(origin, started, || self.cache.clear());
    }

    /// Listens for hints for as long as the process lives.
    pub async fn keep_listening(&self) {
        let Some(mut listener) = self.store.listener() else {
            return pending().await;
        };
        loop {
            let hint = tokio::select! {
                hint = listener.hint() => hint,
                // It may hear of a former database.
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
        if error.is_lost_connection() {
            self.store.renew_connections().await;
        }
    }

    async fn note_timeout(&self, trouble: &mut Trouble) {
        trouble.has(&"no answer within the freshness bound");
        self.store.renew_connections().await;
    }

    async fn last_position(&self) -> i64 {
        self.store.last_position().await.unwrap_or(i64::MIN)
    }
}

/// What goes on failing, told once when it begins and once when it is over.
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

    /// Whether it failed before.
    fn is_over(&mut self) -> bool {
        if self.told {
            tracing::info!("over: {}", self.what);
        }
        std::mem::take(&mut self.told)
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
