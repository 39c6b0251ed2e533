//! Looks up digests in the store that are not in the cache. Lookups are single-flight: concurrent
//! callers that need the same digest share one lookup. Lookups of different digests that wait at
//! the same time share one query (see [`super::coalesce`]). A caller never joins a lookup that
//! started before the last eviction from the cache, because that lookup may have read the store
//! before the change that caused the eviction.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Error,
    coalesce::{Coalescer, Found},
    freshness::Freshness,
};
use crate::{
    domain::{
        clock::Clock,
        lease::Evidence,
        origin::Origin,
        revision::{Revision, Snapshot},
        secret::Digest,
        verdict::Facts,
    },
    store::{self, Store},
};
use stacktoken_core::facts_cache::{Cache, Generation};

/// What a lookup found.
#[derive(Clone)]
pub(super) struct Reading {
    pub facts: Option<Arc<Facts>>,
    pub snapshot: Arc<Snapshot>,
    /// Proof of which database answered and when the lookup started.
    pub evidence: Evidence,
    /// Revision that the facts reflect: they include every change up to it.
    pub applied: Revision,
}

/// Why a lookup failed.
#[derive(Clone, Debug)]
pub(super) enum LookupError {
    /// The store did not answer within the freshness bound. A later answer would be too old to use.
    TooSlow,
    /// The database that answered is not the trusted one, or no heartbeat proves that it is still
    /// the primary.
    Unproven,
    /// The limit on concurrent lookups is reached.
    Overloaded,
    /// The store returned an error.
    Store(Arc<store::Error>),
}

impl LookupError {
    /// Converts this to the error for the caller. `lapsed` states whether the lease had already
    /// lapsed when the call began.
    pub fn into_error(self, lapsed: bool) -> Error {
        match self {
            Self::Overloaded => Error::Overloaded,
            // The caller gets the store's error if the lease was still valid, or if the error stays
            // until somebody acts. Otherwise it learns only that no fresh answer is available.
            Self::Store(error) if !lapsed || is_lasting(&error) => Error::of_reading(&error),
            Self::TooSlow | Self::Unproven | Self::Store(_) => Error::NotFresh,
        }
    }
}

/// Returns whether the error stays until somebody acts.
const fn is_lasting(error: &store::Error) -> bool {
    matches!(
        error,
        store::Error::FileLost(_) | store::Error::RestoredFromPast
    )
}

type Outcome = Result<Reading, LookupError>;

struct Flight {
    number: u64,
    started: Duration,
    generation: Generation,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

/// Single-flight lookups in progress, by digest, and the limit on concurrent lookups.
pub(super) struct SingleFlight {
    open: Mutex<(u64, HashMap<Digest, Flight>)>,
    permits: Arc<Semaphore>,
    bound: Duration,
    /// Whether a caller joins a lookup only if it started recently enough. Only a test sets this to
    /// false.
    checks_start: bool,
}

/// What a lookup needs from the rest of the application.
#[derive(Clone)]
pub(super) struct LookupDeps {
    pub store: Arc<Store>,
    /// Reads single digests, and combines concurrent reads into one statement.
    pub misses: Coalescer<Store>,
    pub cache: Arc<Cache>,
    pub clock: Arc<dyn Clock>,
    pub freshness: Arc<Freshness>,
}

impl LookupDeps {
    /// Handles an answer from a database that is not the trusted one. Renews the connections,
    /// because they may lead to a former primary, and requests a heartbeat, because a heartbeat
    /// determines the current primary.
    pub async fn distrust_database(&self) {
        self.store.renew_connections().await;
        self.freshness.doubted.notify_one();
    }

    /// Queries the store. If a database other than the trusted one answers, retries once on new
    /// connections. The answer of that database is neither used nor cached, even if the answer is
    /// that a digest is unknown.
    async fn ask<A: Asked + ?Sized>(
        &self,
        bound: Duration,
        asked: &A,
    ) -> Result<(A::Lookup, Evidence, Revision), LookupError> {
        for _ in 0..2 {
            let mut proofs = self.freshness.proofs();
            let started = self.clock.monotonic();
            // Taken before the query, so that the query's result reflects everything that this
            // replica has applied at this point.
            let view = self.freshness.view(started);
            let Ok(Some(answered)) = timeout(bound, asked.look_up(self)).await else {
                self.store.renew_silent_connections().await;
                return Err(LookupError::TooSlow);
            };
            let look = answered.map_err(LookupError::Store)?;
            let evidence = self
                .freshness
                .evidence_of_look_up(A::origin(&look), started)
                .filter(|evidence| evidence.tenure() == view.trusted());
            if let Some(evidence) = evidence {
                return Ok((look, evidence, view.claimed()));
            }
            self.distrust_database().await;
            // Waits for the requested heartbeat, without which a retry cannot succeed.
            let _ = timeout(bound, proofs.changed()).await;
        }
        Err(LookupError::Unproven)
    }
}

/// What a lookup queries the store for: one digest or several.
trait Asked: Sync {
    type Lookup: Send;

    /// Returns `None` if the query was not answered in time.
    fn look_up(
        &self,
        ground: &LookupDeps,
    ) -> impl Future<Output = Option<Result<Self::Lookup, Arc<store::Error>>>> + Send;

    /// Returns the origin of the database that answered.
    fn origin(look: &Self::Lookup) -> &Origin;
}

impl Asked for Digest {
    type Lookup = store::Lookup;

    async fn look_up(&self, ground: &LookupDeps) -> Option<Found> {
        ground.misses.read(*self).await
    }

    fn origin(look: &store::Lookup) -> &Origin {
        &look.origin
    }
}

impl Asked for [Digest] {
    type Lookup = store::Lookups;

    async fn look_up(
        &self,
        ground: &LookupDeps,
    ) -> Option<Result<store::Lookups, Arc<store::Error>>> {
        Some(ground.store.look_up_many(self).await.map_err(Arc::new))
    }

    fn origin(look: &store::Lookups) -> &Origin {
        &look.origin
    }
}

impl SingleFlight {
    pub fn new(at_once: usize, bound: Duration, checks_start: bool) -> Self {
        Self {
            open: Mutex::default(),
            permits: Arc::new(Semaphore::new(at_once)),
            bound,
            checks_start,
        }
    }

    /// Looks a digest up in the store. If `shared`, joins a lookup of this digest that is in
    /// progress, unless that lookup is older than half the freshness bound or the cache has evicted
    /// anything since it started.
    pub async fn look_up(&self, ground: &LookupDeps, digest: Digest, shared: bool) -> Outcome {
        let (number, outcome) = self.board(ground, digest, shared);
        // The first waiter that finishes or gives up removes the lookup from the map, so that a
        // later caller starts a new one.
        let _seat = FlightGuard {
            flights: self,
            digest,
            number,
        };
        outcome.await
    }

    fn board(
        &self,
        ground: &LookupDeps,
        digest: Digest,
        shared: bool,
    ) -> (u64, Shared<BoxFuture<'static, Outcome>>) {
        let started = ground.clock.monotonic();
        let generation = ground.cache.generation();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, flights) = &mut *open;
        *numbers += 1;
        let number = *numbers;
        let start = || Flight {
            number,
            started,
            generation,
            outcome: self
                .read(ground, digest, (started, generation))
                .boxed()
                .shared(),
        };
        let flight = match flights.entry(digest) {
            Entry::Occupied(mut open) => {
                let fresh = open.get().generation == generation
                    && started.saturating_sub(open.get().started) <= self.bound / 2;
                if !shared || (self.checks_start && !fresh) {
                    open.insert(start());
                }
                open.into_mut()
            }
            Entry::Vacant(none) => none.insert(start()),
        };
        (flight.number, flight.outcome.clone())
    }

    fn read(
        &self,
        ground: &LookupDeps,
        digest: Digest,
        (started, generation): (Duration, Generation),
    ) -> impl Future<Output = Outcome> + Send + 'static + use<> {
        let ground = ground.clone();
        let (permits, bound) = (self.permits.clone(), self.bound);
        async move {
            let _permit = permits.try_acquire().map_err(|_| LookupError::Overloaded)?;
            let (look, evidence, applied) = ground.ask(bound, &digest).await?;
            let facts = look.facts.map(Arc::new);
            let cache = &ground.cache;
            match &facts {
                Some(facts) => {
                    cache.fill(digest, facts, generation);
                }
                None => cache.note_unknown(digest, started + bound.min(UNKNOWN_FOR), generation),
            }
            Ok(Reading {
                facts,
                snapshot: Arc::new(look.snapshot),
                evidence,
                applied,
            })
        }
    }
}

/// What one lookup of several digests found.
pub(super) struct BatchRead {
    pub facts: HashMap<Digest, Arc<Facts>>,
    pub snapshot: Snapshot,
    pub evidence: Evidence,
    pub applied: Revision,
}

impl SingleFlight {
    /// Looks several digests up in one query. The lookup is not shared with other callers, so it
    /// always starts after this call.
    pub async fn look_up_many(
        &self,
        ground: &LookupDeps,
        digests: &[Digest],
    ) -> Result<BatchRead, LookupError> {
        let cache = &ground.cache;
        let started = ground.clock.monotonic();
        let generation = cache.generation();
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| LookupError::Overloaded)?;
        let (looks, evidence, applied) = ground.ask(self.bound, digests).await?;
        let found = looks.facts.into_iter();
        let facts: HashMap<_, _> = found.map(|(of, facts)| (of, Arc::new(facts))).collect();
        for digest in digests {
            if let Some(facts) = facts.get(digest) {
                cache.fill(*digest, facts, generation);
            } else {
                let until = started + self.bound.min(UNKNOWN_FOR);
                cache.note_unknown(*digest, until, generation);
            }
        }
        Ok(BatchRead {
            facts,
            snapshot: looks.snapshot,
            evidence,
            applied,
        })
    }
}

/// Removes a lookup from the map when one of its waiters finishes or is dropped. The other waiters
/// still get its result.
struct FlightGuard<'a> {
    flights: &'a SingleFlight,
    digest: Digest,
    number: u64,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut open = self
            .flights
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if open
            .1
            .get(&self.digest)
            .is_some_and(|flight| flight.number == self.number)
        {
            open.1.remove(&self.digest);
        }
    }
}

/// How long a digest is cached as unknown, at most.
pub(super) const UNKNOWN_FOR: Duration = Duration::from_secs(1);
