//! The first use of a secret: recorded before any answer says that it is active, and once for
//! all who ask at once. Runs to its end whoever gives up waiting, so that what it changed in
//! the store is always applied here too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use super::{App, flights::Missed};
use crate::{
    domain::{caller::Call, revision::Revision, secret::Digest, verdict::Facts},
    store::Presented,
    telemetry::context,
};

/// How long recording may take; shorter than a call may, so that the caller is told why.
const RECORD_FOR: Duration = Duration::from_secs(4);

type Recording = Shared<BoxFuture<'static, Result<Option<Revision>, Missed>>>;

/// Recordings under way.
#[derive(Default)]
pub(super) struct FirstUses(Arc<Mutex<HashMap<Digest, Recording>>>);

impl App {
    /// Has the first use of a secret recorded; what it ended is thrown out here by then.
    pub(super) async fn record_first_use(
        &self,
        call: &Call,
        digest: Digest,
        facts: &Facts,
    ) -> Result<(), Missed> {
        let recording = {
            let mut open = lock(&self.first_uses.0);
            let start = || self.recording(call.clone(), presented(digest, facts));
            open.entry(digest).or_insert_with(start).clone()
        };
        let done = tokio::time::timeout(RECORD_FOR, recording).await;
        if let Some(revision) = done.map_err(|_| Missed::TooSlow)?? {
            self.note_own(revision);
        }
        let now = self.clock.monotonic();
        self.uses.note_written(facts.token.uid, now);
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself, and nothing is lost if the process ends before it"
    )]
    fn recording(&self, call: Call, presented: Presented) -> Recording {
        let (store, open) = (self.store.clone(), self.first_uses.0.clone());
        let work = context::carried(async move {
            let _closing = Closing(open, presented.digest);
            // Longer than anybody waits: only a store that never answers is given up.
            let done = store.record_first_use(&call, presented);
            let done = tokio::time::timeout(2 * RECORD_FOR, done).await;
            let done = done.map_err(|_| Missed::TooSlow)?;
            done.map_err(|error| Missed::Store(Arc::new(error)))
        });
        let task = tokio::spawn(work);
        task.map(|ended| ended.unwrap_or(Err(Missed::TooSlow)))
            .boxed()
            .shared()
    }
}

/// Closes a recording for those to come, however it ends.
struct Closing(Arc<Mutex<HashMap<Digest, Recording>>>, Digest);

impl Drop for Closing {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

/// What the store is told of a secret that was presented.
pub(super) fn presented(digest: Digest, facts: &Facts) -> Presented {
    Presented {
        digest,
        generation: facts.token.generation,
        token: facts.token.uid,
        stack: facts.stack.uid,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
