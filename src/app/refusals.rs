//! Recording after the fact (R14): refusals, one row per caller, RPC, reason and minute, with a
//! count; and that a superseded secret was presented, once for each. Never in the way of an
//! answer, and bounded however many there are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use quick_cache::sync::Cache as Shards;
use tokio::sync::mpsc;

use crate::{
    domain::{
        audit::Action,
        caller::{Actor, Call},
        secret::Digest,
    },
    metrics::Metrics,
    store::{Presented, RefusalNote, RefusedCall, Store},
};

/// How many refusals may wait to be folded together.
const WAITING: usize = 4096;
/// How many rows may wait to be written while the store is down.
const UNWRITTEN: usize = 10_000;
/// The pause between two writes: a flood of refusals costs a few transactions a second.
const PAUSE: Duration = Duration::from_millis(200);

/// How many superseded secrets are remembered as told of.
const TOLD: usize = 10_000;

type Pending = HashMap<RefusalNote, (RefusedCall, u32)>;

/// What is to be recorded.
enum Noted {
    Refusal(RefusalNote, RefusedCall),
    Superseded(Box<Call>, Presented),
}

/// Where refusals are noted.
pub(super) struct RefusalLog {
    notes: mpsc::Sender<Noted>,
    told: Shards<Digest, ()>,
    metrics: Arc<Metrics>,
}

/// Who writes them down; to be run beside the service.
pub struct RefusalWriter {
    notes: mpsc::Receiver<Noted>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    pending: Pending,
    superseded: Vec<(Box<Call>, Presented)>,
}

pub(super) fn channel(store: Arc<Store>, metrics: Arc<Metrics>) -> (RefusalLog, RefusalWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let log = RefusalLog {
        notes: sender,
        told: Shards::new(TOLD),
        metrics: metrics.clone(),
    };
    let writer = RefusalWriter {
        notes: receiver,
        store,
        metrics,
        pending: Pending::new(),
        superseded: Vec::new(),
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
        let actor = actor.clone();
        let note = RefusalNote {
            actor,
            action,
            reason,
            minute: first.at.minute(),
        };
        let noted = Noted::Refusal(note, first);
        if self.notes.try_send(noted).is_err() {
            self.metrics.refusals_dropped.inc();
        }
    }

    /// Has it recorded that a superseded secret was presented, unless this replica has done
    /// so before. What is lost here is told of when it is presented again.
    pub fn note_superseded(&self, call: &Call, presented: Presented) {
        if self.told.get(&presented.digest).is_some() {
            return;
        }
        let noted = Noted::Superseded(Box::new(call.clone()), presented);
        if self.notes.try_send(noted).is_ok() {
            self.told.insert(presented.digest, ());
        }
    }
}

impl RefusalWriter {
    /// Writes until the service is gone and everything noted is written, or cannot be.
    pub async fn run(mut self) {
        while let Some(noted) = self.notes.recv().await {
            self.take(noted);
            while let Ok(noted) = self.notes.try_recv() {
                self.take(noted);
            }
            self.write().await;
            tokio::time::sleep(PAUSE).await;
        }
        self.write().await;
    }

    fn take(&mut self, noted: Noted) {
        let (note, first) = match noted {
            Noted::Refusal(note, first) => (note, first),
            Noted::Superseded(call, presented) => {
                if self.superseded.len() < UNWRITTEN {
                    self.superseded.push((call, presented));
                }
                return;
            }
        };
        if self.pending.len() >= UNWRITTEN && !self.pending.contains_key(&note) {
            self.metrics.refusals_dropped.inc();
            return;
        }
        let (_, count) = self.pending.entry(note).or_insert((first, 0));
        *count = count.saturating_add(1);
    }

    /// What cannot be written now waits for the next time.
    async fn write(&mut self) {
        for (call, presented) in std::mem::take(&mut self.superseded) {
            if let Err(error) = self.store.record_superseded(&call, presented).await {
                tracing::warn!(%error, "a superseded secret waits to be told of in the audit");
                self.superseded.push((call, presented));
            }
        }
        let rows: Vec<_> = self
            .pending
            .drain()
            .map(|(note, (first, n))| (note, first, n))
            .collect();
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_refusals(&rows).await {
            tracing::warn!(%error, rows = rows.len(), "refusals wait to be written to the audit");
            self.pending
                .extend(rows.into_iter().map(|(note, first, n)| (note, (first, n))));
        }
    }
}
