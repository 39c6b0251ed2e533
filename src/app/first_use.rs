//! Records the first use of a secret, before any answer calls the secret active, and only once for
//! all concurrent callers. The recording finishes even if every caller gives up, so that its change
//! in the store is always applied to the cache of this replica too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

use super::{App, lookup::LookupError};
use crate::{
    domain::{caller::Call, revision::Revision, secret::Digest, verdict::Facts},
    store::PresentedSecret,
    telemetry::context,
};

/// How long a caller waits for the recording. This is shorter than the deadline of a call, so that
/// the caller gets a specific error.
const RECORD_FOR: Duration = Duration::from_secs(4);

type Recording = Shared<BoxFuture<'static, Result<Option<Revision>, LookupError>>>;

/// Recordings in progress, by digest.
#[derive(Default)]
pub(super) struct FirstUseRecorder(Arc<Mutex<HashMap<Digest, Recording>>>);

impl App {
    /// Records the first use of a secret. Evicts the cached facts that the recording makes outdated
    /// before it returns.
    pub(super) async fn record_first_use(
        &self,
        call: &Call,
        digest: Digest,
        facts: &Facts,
    ) -> Result<(), LookupError> {
        let recording = {
            let mut open = lock(&self.first_uses.0);
            let start = || self.recording(call.clone(), presented(digest, facts));
            open.entry(digest).or_insert_with(start).clone()
        };
        let done = tokio::time::timeout(RECORD_FOR, recording).await;
        if let Some(revision) = done.map_err(|_| LookupError::TooSlow)?? {
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
    fn recording(&self, call: Call, presented: PresentedSecret) -> Recording {
        let (store, open) = (self.store.clone(), self.first_uses.0.clone());
        let work = context::carried(async move {
            let _closing = Closing(open, presented.digest);
            // This time limit is longer than any caller waits. It removes a recording that the
            // store never answers.
            let done = store.record_first_use(&call, presented);
            let done = tokio::time::timeout(2 * RECORD_FOR, done).await;
            let done = done.map_err(|_| LookupError::TooSlow)?;
            done.map_err(|error| LookupError::Store(Arc::new(error)))
        });
        let task = tokio::spawn(work);
        task.map(|ended| ended.unwrap_or(Err(LookupError::TooSlow)))
            .boxed()
            .shared()
    }
}

/// Guard that removes a recording of a first use from the map when it is dropped, even on panic.
struct Closing(Arc<Mutex<HashMap<Digest, Recording>>>, Digest);

impl Drop for Closing {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

/// Builds the store's description of a presented secret.
pub(super) fn presented(digest: Digest, facts: &Facts) -> PresentedSecret {
    PresentedSecret {
        digest,
        generation: facts.token.generation,
        token: facts.token.uid,
        stack: facts.stack.uid,
        session: facts.session.is_some(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
