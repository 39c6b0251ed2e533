//! Recording refusals after the fact (R14): one row per caller, RPC, reason and minute, with a
//! count. Never in the way of an answer, and bounded however many there are.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    domain::{audit::Action, caller::Actor},
    metrics::Metrics,
    store::{RefusalNote, RefusedCall, Store},
};

/// How many refusals may wait to be folded together.
const WAITING: usize = 4096;
/// How many rows may wait to be written while the store is down.
const UNWRITTEN: usize = 10_000;
/// The pause between two writes: a flood of refusals costs a few transactions a second.
const PAUSE: Duration = Duration::from_millis(200);

type Pending = HashMap<RefusalNote, (RefusedCall, u32)>;

/// Where refusals are noted.
pub(super) struct RefusalLog {
    notes: mpsc::Sender<(RefusalNote, RefusedCall)>,
    metrics: Arc<Metrics>,
}

/// Who writes them down; to be run beside the service.
pub struct RefusalWriter {
    notes: mpsc::Receiver<(RefusalNote, RefusedCall)>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    pending: Pending,
}

pub(super) fn channel(store: Arc<Store>, metrics: Arc<Metrics>) -> (RefusalLog, RefusalWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let log = RefusalLog {
        notes: sender,
        metrics: metrics.clone(),
    };
    let writer = RefusalWriter {
        notes: receiver,
        store,
        metrics,
        pending: Pending::new(),
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
        if self.notes.try_send((note, first)).is_err() {
            self.metrics.refusals_dropped.inc();
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

    fn take(&mut self, (note, first): (RefusalNote, RefusedCall)) {
        if self.pending.len() >= UNWRITTEN && !self.pending.contains_key(&note) {
            self.metrics.refusals_dropped.inc();
            return;
        }
        let (_, count) = self.pending.entry(note).or_insert((first, 0));
        *count = count.saturating_add(1);
    }

    /// What cannot be written now waits for the next time.
    async fn write(&mut self) {
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
