//! Caches the keys from one source. Decides when the keys are fetched, when they are replaced and
//! when they are no longer trusted. Measures time with the monotonic clock. This module does not
//! depend on issuers or credentials.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{info, warn};

use super::{
    fetch::{Fetch, FetchError, KeyFetcher},
    jwks::{KeySet, NotAKeySet, SignatureCheck, SignedMessage},
    source::KeySource,
};
use crate::domain::clock::Clock;

/// Age at which keys are fetched again.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// Delay before a failed fetch is retried.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Minimum interval between two fetches that are caused by credentials with unknown keys.
const ASK_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// A caller waits for another caller's fetch only until that fetch has run for this long, which is
/// about as long as a normal fetch takes. A source that hangs must not block every caller.
const JOIN_WITHIN: Duration = Duration::from_millis(250);
/// Interval of the check whether a fetch is due. A timer that fires at the due time would not
/// follow the clock of a test.
const TICK: Duration = Duration::from_secs(1);

/// State shared by all sources.
pub(super) struct JwksDeps {
    pub clock: Arc<dyn Clock>,
    pub fetcher: Arc<dyn KeyFetcher>,
    pub max_stale: Duration,
    /// Number of changes to any key set so far. Each change invalidates all cached verifications.
    pub generation: AtomicU64,
}

/// An error that occurred while loading keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadFailed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Content(#[from] NotAKeySet),
    #[error("contains no usable key")]
    Empty,
}

/// The keys of one source.
pub(super) struct IssuerKeys {
    source: KeySource,
    deps: Arc<JwksDeps>,
    cached: ArcSwapOption<CachedKeySet>,
    flight: Mutex<Flight>,
    /// Start of the running fetch, in microseconds of the monotonic clock plus one; 0 if no fetch
    /// is running.
    fetching_since: AtomicU64,
}

/// Whether newer keys were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshOutcome {
    /// Newer keys were loaded.
    Newer,
    /// No newer keys were loaded, and no fetch is running.
    Same,
    /// A fetch that may bring newer keys is still running.
    Undecided,
}

/// A cached key set. `fetched_at` is the monotonic time at which its fetch started. `serial` is the
/// number of that fetch.
struct CachedKeySet {
    set: KeySet,
    fetched_at: Duration,
    serial: u64,
}

/// State of the fetches from a source, of which at most one runs at a time.
#[derive(Default)]
struct Flight {
    /// Start time and future of the running fetch. If the caller that polls the future is
    /// cancelled, the next caller that locks this state resumes the fetch. If there is no other
    /// caller, the background task does.
    under_way: Option<(Duration, Fetch)>,
    due_at: Duration,
    asked_at: Option<Duration>,
    failing: bool,
}

impl IssuerKeys {
    pub(super) fn new(source: KeySource, deps: Arc<JwksDeps>) -> Self {
        Self {
            source,
            deps,
            cached: ArcSwapOption::empty(),
            flight: Mutex::default(),
            fetching_since: AtomicU64::new(0),
        }
    }

    pub(super) fn source(&self) -> &KeySource {
        &self.source
    }

    /// Checks a signature against the keys; `None` if no keys are trusted.
    pub(super) fn check(&self, signed: SignedMessage<'_>) -> Option<SignatureCheck> {
        let cached = self.cached.load();
        let now = self.deps.clock.monotonic();
        let cached = cached.as_ref().filter(|cached| self.trusts(cached, now))?;
        Some(cached.set.check(signed))
    }

    /// Returns whether there are keys and the last successful fetch is recent enough to trust them.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted_at(self.deps.clock.monotonic())
    }

    /// Returns whether the keys are trusted at `now`, as [`Self::is_trusted`] does.
    pub(super) fn is_trusted_at(&self, now: Duration) -> bool {
        let cached = self.cached.load();
        cached
            .as_ref()
            .is_some_and(|cached| self.trusts(cached, now))
    }

    fn trusts(&self, cached: &CachedKeySet, now: Duration) -> bool {
        let age = now.saturating_sub(cached.fetched_at);
        age <= self.deps.max_stale && !cached.set.is_empty()
    }

    /// Fetches the keys now, whether or not a fetch is due.
    pub(super) async fn load(&self) -> Result<(), LoadFailed> {
        let mut flight = self.flight.lock().await;
        self.finish_fetch(&mut flight).await?;
        self.is_trusted().then_some(()).ok_or(LoadFailed::Empty)
    }

    /// Fetches the keys now, and passes them to `look`.
    pub(super) async fn inspect<T>(
        &self,
        look: impl FnOnce(&KeySet) -> T,
    ) -> Result<T, LoadFailed> {
        let mut flight = self.flight.lock().await;
        self.finish_fetch(&mut flight).await?;
        let cached = self.cached.load();
        cached
            .as_ref()
            .map(|cached| look(&cached.set))
            .ok_or(LoadFailed::Empty)
    }

    /// Fetches the keys if a fetch is due, or finishes a fetch whose caller was cancelled.
    pub(super) async fn refresh_if_due(&self) {
        let mut flight = self.flight.lock().await;
        if flight.under_way.is_some() || self.deps.clock.monotonic() >= flight.due_at {
            // `finish_fetch` records and logs a failure.
            let _ = self.finish_fetch(&mut flight).await;
        }
    }

    /// Fetches the keys whenever a fetch is due; never returns.
    pub(super) async fn keep_fresh(&self) {
        loop {
            self.refresh_if_due().await;
            tokio::time::sleep(TICK).await;
        }
    }

    /// Fetches because a JWT names an unknown key, at most once a minute. Another caller waits for
    /// a running fetch only until the fetch is `JOIN_WITHIN` old, and then gets
    /// [`RefreshOutcome::Undecided`].
    pub(super) async fn refresh_for_unknown(&self) -> RefreshOutcome {
        let before = self.serial();
        let asked = |is_newer| {
            if is_newer {
                RefreshOutcome::Newer
            } else {
                RefreshOutcome::Same
            }
        };
        let Some(mut flight) = self.join().await else {
            return if self.serial() == before {
                RefreshOutcome::Undecided
            } else {
                RefreshOutcome::Newer
            };
        };
        let now = self.deps.clock.monotonic();
        let may_ask = flight
            .asked_at
            .is_none_or(|at| now.saturating_sub(at) >= ASK_AGAIN_AFTER);
        if flight.under_way.is_none() {
            let is_answered = self.serial() != before;
            if is_answered || !may_ask {
                return asked(is_answered);
            }
            flight.asked_at = Some(now);
        }
        let _ = self.finish_fetch(&mut flight).await;
        asked(self.serial() != before)
    }

    /// Locks the state of the fetches; `None` if another caller's fetch is older than
    /// `JOIN_WITHIN`.
    async fn join(&self) -> Option<MutexGuard<'_, Flight>> {
        let left = match self.fetching_since.load(Ordering::Acquire) {
            0 => JOIN_WITHIN,
            since => {
                let since = Duration::from_micros(since - 1);
                let age = self.deps.clock.monotonic().saturating_sub(since);
                JOIN_WITHIN.saturating_sub(age)
            }
        };
        let flight = tokio::time::timeout(left, self.flight.lock()).await;
        flight.ok()
    }

    fn serial(&self) -> u64 {
        self.cached
            .load()
            .as_ref()
            .map_or(0, |cached| cached.serial)
    }

    async fn finish_fetch(&self, flight: &mut Flight) -> Result<(), LoadFailed> {
        let (started_at, fetch) = flight.under_way.get_or_insert_with(|| {
            (
                self.deps.clock.monotonic(),
                self.deps.fetcher.fetch(&self.source),
            )
        });
        let started_at = *started_at;
        let since = u64::try_from(started_at.as_micros()).unwrap_or(u64::MAX - 1);
        self.fetching_since.store(since + 1, Ordering::Release);
        let body = fetch.as_mut().await;
        flight.under_way = None;
        self.fetching_since.store(0, Ordering::Release);
        let outcome = body
            .map_err(LoadFailed::from)
            .and_then(|body| Ok(KeySet::parse(&body)?))
            .map(|set| self.replace(set, started_at));
        self.note(flight, outcome.as_ref().err());
        outcome
    }

    /// Replaces the whole key set, so that a key that the issuer has removed is no longer trusted.
    fn replace(&self, set: KeySet, fetched_at: Duration) {
        let before = self.cached.load_full();
        let changed = !before.is_some_and(|before| before.set.is_same(&set));
        if changed {
            for skipped in set.skipped() {
                warn!(source = %self.source, "key skipped: {skipped}");
            }
            if set.is_empty() {
                warn!(source = %self.source, "the key set contains no usable key");
            }
        }
        self.cached.store(Some(Arc::new(CachedKeySet {
            set,
            fetched_at,
            serial: self.serial() + 1,
        })));
        if changed {
            self.deps.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn note(&self, flight: &mut Flight, failure: Option<&LoadFailed>) {
        let now = self.deps.clock.monotonic();
        let wait = if failure.is_some() {
            RETRY_AFTER
        } else {
            REFRESH_AFTER
        };
        flight.due_at = now + wait;
        // Logs one line when fetches start to fail and one when they succeed again, but none per
        // retry.
        match failure {
            // If a key file was never loaded, startup fails and reports the error.
            Some(_)
                if matches!(self.source, KeySource::File(_)) && self.cached.load().is_none() => {}
            Some(why) if !flight.failing => {
                warn!(source = %self.source, "key set not refreshed, retrying: {why}");
            }
            None if flight.failing => info!(source = %self.source, "key set refresh recovered"),
            _ => {}
        }
        flight.failing = failure.is_some();
    }
}
