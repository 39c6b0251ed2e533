//! Recording after the fact (R14): refusals, one row per caller, RPC, reason and minute, with a
//! count; and that a superseded secret was presented, once for each. Never in the way of an
//! answer, and bounded however many there are.
//!
//! Refusals are folded where they are noted, before anything waits: a flood by one caller is a
//! few rows, and costs no other caller's.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quick_cache::sync::Cache as Shards;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    domain::{
        audit::Action,
        caller::{Actor, Call},
        secret::Digest,
    },
    metrics::Metrics,
    store::{Presented, RefusalNote, RefusedCall, Store},
};

/// How many rows may wait to be written, such as while the store is down.
const UNWRITTEN: usize = 10_000;
/// How many of them may be of one caller.
const UNWRITTEN_OF_ONE: usize = 256;
/// How many rows one transaction writes.
const AT_ONCE: usize = 256;
/// The pause between two writes: a flood of refusals costs a few transactions a second.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two attempts while the store cannot be written.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often writing is tried at the end of the process.
const LAST_ATTEMPTS: u32 = 3;

/// How many superseded secrets are remembered as told of.
const TOLD: usize = 10_000;

type Row = (RefusalNote, RefusedCall, u32);
type Superseded = (Box<Call>, Presented);

/// What waits to be written.
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

/// Where refusals are noted. Dropping it has the writer end once all is written.
pub(super) struct RefusalLog {
    shared: Arc<Shared>,
    told: Shards<Digest, ()>,
    metrics: Arc<Metrics>,
    _closing: DropGuard,
}

/// Who writes them down; to be run beside the service.
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
        told: Shards::new(TOLD),
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

impl RefusalLog {
    pub fn note(
        &self,
        actor: &Actor,
        (action, reason): (Action, &'static str),
        first: RefusedCall,
    ) {
        let note = RefusalNote {
            actor: actor.clone(),
            action,
            reason,
            minute: first.at.minute(),
        };
        if self.shared.waiting().fold((note, first, 1)) {
            self.shared.noted.notify_one();
        } else {
            self.metrics.refusals_dropped.inc();
        }
    }

    /// Has it recorded that a superseded secret was presented, unless this replica has done
    /// so before. What is lost here is told of when it is presented again.
    pub fn note_superseded(&self, call: &Call, presented: Presented) {
        if self.told.get(&presented.digest).is_some() {
            return;
        }
        let mut waiting = self.shared.waiting();
        if waiting.superseded.len() < UNWRITTEN {
            self.told.insert(presented.digest, ());
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

    /// Adds to the row of a refusal, or begins it; `false` where there is no room for one more.
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

    /// Takes back what could not be written; all of it, since there was room for it before.
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
    /// Writes until the service is gone and everything noted is written, or cannot be. What
    /// could not be written is tried again, by itself.
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

    /// Says whether everything was written.
    async fn write(&self) -> bool {
        let superseded = mem::take(&mut self.shared.waiting().superseded);
        let mut unwritten = Vec::new();
        for (call, presented) in superseded {
            if let Err(error) = self.store.record_superseded(&call, presented).await {
                tracing::warn!(%error, "a superseded secret waits to be told of in the audit");
                unwritten.push((call, presented));
            }
        }
        let rows = self.shared.waiting().take_rows();
        let rows = self.unwritten(rows).await;
        let written = rows.is_empty() && unwritten.is_empty();
        let mut waiting = self.shared.waiting();
        waiting.superseded.append(&mut unwritten);
        waiting.put_back(rows);
        written
    }

    /// Writes rows; returns those that could not be.
    async fn unwritten(&self, mut rows: Vec<Row>) -> Vec<Row> {
        while !rows.is_empty() {
            let some = rows.len().saturating_sub(AT_ONCE);
            if let Err(error) = self.store.record_refusals(&rows[some..]).await {
                let rows = rows.len();
                tracing::warn!(%error, rows, "refusals wait to be written to the audit");
                break;
            }
            rows.truncate(some);
        }
        rows
    }
}
