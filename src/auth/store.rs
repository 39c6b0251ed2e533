//! The keys of one source over time: when they are fetched, replaced and no longer trusted.
//! Measures by the clock's monotonic side; does not know issuers or credentials.

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
    jwks::{KeySet, NotAKeySet, Seal, Signed},
    source::KeySource,
};
use crate::domain::clock::Clock;

/// How old keys get before they are fetched again.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// How soon a failed fetch is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often credentials with unknown keys can cause a fetch.
const ASK_AGAIN_AFTER: Duration = Duration::from_mins(1);
/// How long after its start others than the one that asked wait for a fetch. Keys that are
/// replaced come about as fast; a key address that hangs must not keep everybody waiting.
const JOIN_WITHIN: Duration = Duration::from_millis(250);
/// How often the clock is looked at. It has no alarm, so that a test can move it.
const TICK: Duration = Duration::from_secs(1);

/// What all stores share.
pub(super) struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub fetcher: Arc<dyn KeyFetcher>,
    pub max_stale: Duration,
    /// Counts the changes of any key set: what was verified at one count holds until the next.
    pub generation: AtomicU64,
}

/// Why no keys were loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadFailed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Content(#[from] NotAKeySet),
    #[error("holds no usable key")]
    Empty,
}

/// The keys of one source.
pub(super) struct KeyStore {
    source: KeySource,
    around: Arc<Surroundings>,
    held: ArcSwapOption<Held>,
    flight: Mutex<Flight>,
    /// When the fetch under way was started, in microseconds of the monotonic clock plus one; 0
    /// where there is none.
    fetching_since: AtomicU64,
}

/// What came of asking for newer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There are newer keys.
    Newer,
    /// There are none, as far as is known.
    Same,
    /// A fetch is still under way that may bring some.
    Undecided,
}

/// A key set, when it was asked for on the monotonic side, and which load it is.
struct Held {
    set: KeySet,
    fetched_at: Duration,
    serial: u64,
}

/// The one fetch of a source, under way or past.
#[derive(Default)]
struct Flight {
    /// Stays here while it runs: a caller who gives up leaves it to the next one in the queue,
    /// at the latest the supervised task, and so cannot waste it.
    under_way: Option<(Duration, Fetch)>,
    due_at: Duration,
    asked_at: Option<Duration>,
    failing: bool,
}

impl KeyStore {
    pub(super) fn new(source: KeySource, around: Arc<Surroundings>) -> Self {
        Self {
            source,
            around,
            held: ArcSwapOption::empty(),
            flight: Mutex::default(),
            fetching_since: AtomicU64::new(0),
        }
    }

    pub(super) fn source(&self) -> &KeySource {
        &self.source
    }

    /// Judges a signature; `None` if there are no keys that are still trusted.
    pub(super) fn check(&self, signed: Signed<'_>) -> Option<Seal> {
        let held = self.held.load();
        let held = held.as_ref().filter(|held| self.trusts(held))?;
        Some(held.set.check(signed))
    }

    /// Whether there are keys, and the last success is not too long ago.
    pub(super) fn is_trusted(&self) -> bool {
        self.held
            .load()
            .as_ref()
            .is_some_and(|held| self.trusts(held))
    }

    fn trusts(&self, held: &Held) -> bool {
        let age = self
            .around
            .clock
            .monotonic()
            .saturating_sub(held.fetched_at);
        age <= self.around.max_stale && !held.set.is_empty()
    }

    /// Fetches now, whatever is due.
    pub(super) async fn load(&self) -> Result<(), LoadFailed> {
        let mut flight = self.flight.lock().await;
        self.land(&mut flight).await?;
        self.is_trusted().then_some(()).ok_or(LoadFailed::Empty)
    }

    /// Fetches if the keys are due, or finishes what a caller began and left.
    pub(super) async fn refresh_if_due(&self) {
        let mut flight = self.flight.lock().await;
        if flight.under_way.is_some() || self.around.clock.monotonic() >= flight.due_at {
            // Noted in the flight and logged there.
            let _ = self.land(&mut flight).await;
        }
    }

    /// Refreshes for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            self.refresh_if_due().await;
            tokio::time::sleep(TICK).await;
        }
    }

    /// Fetches for the sake of a key that is not known, at most once a minute. Others wait for
    /// that fetch only within its first [`JOIN_WITHIN`].
    pub(super) async fn refresh_for_unknown(&self) -> Asked {
        let before = self.serial();
        let asked = |is_newer| if is_newer { Asked::Newer } else { Asked::Same };
        let Some(mut flight) = self.join().await else {
            return if self.serial() == before {
                Asked::Undecided
            } else {
                Asked::Newer
            };
        };
        let now = self.around.clock.monotonic();
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
        let _ = self.land(&mut flight).await;
        asked(self.serial() != before)
    }

    /// The flight, for whoever may run it; `None` where a fetch is under way for too long.
    async fn join(&self) -> Option<MutexGuard<'_, Flight>> {
        let left = match self.fetching_since.load(Ordering::Acquire) {
            0 => JOIN_WITHIN,
            since => {
                let since = Duration::from_micros(since - 1);
                let age = self.around.clock.monotonic().saturating_sub(since);
                JOIN_WITHIN.saturating_sub(age)
            }
        };
        let flight = tokio::time::timeout(left, self.flight.lock()).await;
        flight.ok()
    }

    fn serial(&self) -> u64 {
        self.held.load().as_ref().map_or(0, |held| held.serial)
    }

    async fn land(&self, flight: &mut Flight) -> Result<(), LoadFailed> {
        let (started_at, fetch) = flight.under_way.get_or_insert_with(|| {
            (
                self.around.clock.monotonic(),
                self.around.fetcher.fetch(&self.source),
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

    /// The whole set is replaced: a key that the issuer took away is no longer trusted.
    fn replace(&self, set: KeySet, fetched_at: Duration) {
        let before = self.held.load_full();
        let changed = !before.is_some_and(|before| before.set.is_same(&set));
        if changed {
            for skipped in set.skipped() {
                warn!(source = %self.source, "key skipped: {skipped}");
            }
            if set.is_empty() {
                warn!(source = %self.source, "the key set holds no usable key");
            }
        }
        self.held.store(Some(Arc::new(Held {
            set,
            fetched_at,
            serial: self.serial() + 1,
        })));
        if changed {
            self.around.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn note(&self, flight: &mut Flight, failure: Option<&LoadFailed>) {
        let now = self.around.clock.monotonic();
        let wait = if failure.is_some() {
            RETRY_AFTER
        } else {
            REFRESH_AFTER
        };
        flight.due_at = now + wait;
        // One line when it starts to fail and one when it ends, not one per retry.
        match failure {
            // A file that was never read stops the start, which tells its own line.
            Some(_) if matches!(self.source, KeySource::File(_)) && self.held.load().is_none() => {}
            Some(why) if !flight.failing => {
                warn!(source = %self.source, "key set not refreshed, retrying: {why}");
            }
            None if flight.failing => info!(source = %self.source, "key set refreshed again"),
            _ => {}
        }
        flight.failing = failure.is_some();
    }
}
