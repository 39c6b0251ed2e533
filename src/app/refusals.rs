//! Writes those audit rows that are written after the caller has been answered (R14). There are two
//! kinds: refusals, with one row and a count per caller, RPC, reason and minute; and the first
//! presentation of each superseded secret. Queuing a row never delays an answer, and the queue is
//! bounded.
//!
//! Refusals are aggregated when they are queued, so a flood of refusals of one caller takes few
//! rows and does not displace the rows of other callers.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache as Shards;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    domain::{
        audit::AuditAction,
        caller::{Actor, Call, Caller},
        secret::Digest,
        timestamp::Timestamp,
    },
    metrics::Metrics,
    store::{Hidden, PresentedSecret, RefusalNote, RefusedCall, Store},
};

/// Maximum number of unwritten rows. They accumulate, for example, while the store is down.
const UNWRITTEN: usize = 10_000;
/// Maximum number of unwritten rows of one caller.
const UNWRITTEN_OF_ONE: usize = 256;
/// Maximum number of rows per minute about refusals with a hidden cause.
const HIDDEN_PER_MINUTE: usize = 200;
/// Number of rows per transaction.
const AT_ONCE: usize = 256;
/// Pause between two writes, so that a flood of refusals costs only a few transactions per second.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts to write while the store does not accept writes.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Number of write attempts at shutdown.
const LAST_ATTEMPTS: u32 = 3;

/// Maximum number of superseded secrets that are remembered as already queued, so that each gets
/// only one row.
const MAX_REPORTED_SECRETS: usize = 10_000;

type Row = (RefusalNote, RefusedCall, u32);
type Superseded = (Box<Call>, PresentedSecret);

/// The queue of unwritten rows.
#[derive(Default)]
struct Waiting {
    refusals: HashMap<RefusalNote, (RefusedCall, u32)>,
    of_each: HashMap<Actor, usize>,
    superseded: Vec<Superseded>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    noted: Notify,
}

/// The input side of the queue. After it is dropped, the writer stops once everything is written.
pub(super) struct RefusalLog {
    shared: Arc<Shared>,
    reported: Shards<Digest, ()>,
    hidden: HiddenRows,
    metrics: Arc<Metrics>,
    _closing: DropGuard,
}

/// Writes queued rows to the audit. Run this as long as the service runs.
pub struct RefusalWriter {
    shared: Arc<Shared>,
    store: Arc<Store>,
    closed: CancellationToken,
}

pub(super) fn channel(store: Arc<Store>, metrics: Arc<Metrics>) -> (RefusalLog, RefusalWriter) {
    let shared = Arc::new(Shared::default());
    let closed = CancellationToken::new();
    let log = RefusalLog {
        shared: shared.clone(),
        reported: Shards::new(MAX_REPORTED_SECRETS),
        hidden: HiddenRows::default(),
        metrics,
        _closing: closed.clone().drop_guard(),
    };
    let writer = RefusalWriter {
        shared,
        store,
        closed,
    };
    (log, writer)
}

/// Limits the rows per minute about refusals with a hidden cause, over all callers together,
/// because anyone who has an account at a public issuer can cause such refusals.
#[derive(Default)]
struct HiddenRows(Mutex<(Option<Timestamp>, HashSet<RefusalNote>)>);

impl HiddenRows {
    /// Returns whether the refusal may be queued: if it has a row already, or if the limit still
    /// permits a new row.
    fn admit(&self, note: &RefusalNote) -> bool {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.0 != Some(note.minute) {
            *rows = (Some(note.minute), HashSet::new());
        }
        if rows.1.contains(note) {
            return true;
        }
        rows.1.len() < HIDDEN_PER_MINUTE && rows.1.insert(note.clone())
    }
}

impl RefusalLog {
    pub fn note(
        &self,
        caller: &Caller,
        (action, reason, hidden): (AuditAction, &'static str, Option<Hidden>),
        first: RefusedCall,
    ) {
        let note = RefusalNote {
            actor: caller.refused_as().into_owned(),
            issuer: caller.federation_issuer().map(str::to_owned),
            action,
            reason,
            minute: first.at.minute(),
            hidden,
        };
        if note.hidden.is_some() && !self.hidden.admit(&note) {
            self.metrics.refusals_dropped.inc();
            return;
        }
        if self.shared.waiting().fold((note, first, 1)) {
            self.shared.noted.notify_one();
        } else {
            self.metrics.refusals_dropped.inc();
        }
    }

    /// Queues a row about the presentation of a superseded secret, unless this replica has already
    /// queued a row about the same secret. If the queue is full, drops the row; the next
    /// presentation of the secret queues it again.
    pub fn note_superseded(&self, call: &Call, presented: PresentedSecret) {
        if self.reported.get(&presented.digest).is_some() {
            return;
        }
        let mut waiting = self.shared.waiting();
        if waiting.superseded.len() < UNWRITTEN {
            self.reported.insert(presented.digest, ());
            waiting.superseded.push((Box::new(call.clone()), presented));
            self.shared.noted.notify_one();
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.refusals.is_empty() && self.superseded.is_empty()
    }

    /// Adds refusals to an existing row or creates a new row. Returns `false` if the queue is full.
    fn fold(&mut self, (note, first, count): Row) -> bool {
        if let Some((_, folded)) = self.refusals.get_mut(&note) {
            *folded = folded.saturating_add(count);
            return true;
        }
        let of_this = self.of_each.entry(note.actor.clone()).or_default();
        if *of_this >= UNWRITTEN_OF_ONE || self.refusals.len() >= UNWRITTEN {
            return false;
        }
        *of_this += 1;
        self.refusals.insert(note, (first, count));
        true
    }

    fn take_rows(&mut self) -> Vec<Row> {
        self.of_each.clear();
        let rows = mem::take(&mut self.refusals).into_iter();
        rows.map(|(note, (first, count))| (note, first, count))
            .collect()
    }

    /// Returns rows to the queue after a failed write. The limits of the queue do not apply,
    /// because these rows already passed them when they were first queued.
    fn put_back(&mut self, rows: Vec<Row>) {
        for (note, first, count) in rows {
            let later = self.refusals.insert(note.clone(), (first, count));
            match (later, self.refusals.get_mut(&note)) {
                (Some((_, more)), Some((_, folded))) => *folded = folded.saturating_add(more),
                _ => *self.of_each.entry(note.actor).or_default() += 1,
            }
        }
    }
}

impl RefusalWriter {
    /// Writes queued rows and retries failed writes. Returns after the service has stopped, once
    /// the queue is empty or the last attempts have failed.
    pub async fn run(self) {
        let (mut pause, mut last_attempts) = (PAUSE, 0);
        loop {
            if self.shared.waiting().is_empty() {
                tokio::select! {
                    () = self.shared.noted.notified() => {}
                    () = self.closed.cancelled() => {}
                }
            }
            let written = self.write().await;
            pause = if written {
                PAUSE
            } else {
                (2 * pause).min(LONGEST_PAUSE)
            };
            if self.closed.is_cancelled() {
                last_attempts += 1;
                if self.shared.waiting().is_empty() || last_attempts >= LAST_ATTEMPTS {
                    return;
                }
                pause = PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closed.cancelled(), if last_attempts == 0 => {}
            }
        }
    }

    /// Writes all queued rows. Returns whether all of them were written.
    async fn write(&self) -> bool {
        let superseded = mem::take(&mut self.shared.waiting().superseded);
        let mut write_or_return = Vec::new();
        for (call, presented) in superseded {
            if let Err(error) = self.store.record_superseded(&call, presented).await {
                tracing::warn!(%error, "the use of a superseded secret could not be recorded; retrying");
                write_or_return.push((call, presented));
            }
        }
        let rows = self.shared.waiting().take_rows();
        let rows = self.write_or_return(rows).await;
        let written = rows.is_empty() && write_or_return.is_empty();
        let mut waiting = self.shared.waiting();
        waiting.superseded.append(&mut write_or_return);
        waiting.put_back(rows);
        written
    }

    /// Writes refusal rows. Returns the rows that could not be written.
    async fn write_or_return(&self, mut rows: Vec<Row>) -> Vec<Row> {
        while !rows.is_empty() {
            let some = rows.len().saturating_sub(AT_ONCE);
            if let Err(error) = self.store.record_refusals(&rows[some..]).await {
                let rows = rows.len();
                tracing::warn!(%error, rows, "refusals could not be written to the audit; retrying");
                break;
            }
            rows.truncate(some);
        }
        rows
    }
}
