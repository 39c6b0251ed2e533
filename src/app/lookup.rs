//! Store lookups for digests that are not cached. Single-flight loads; a caller never joins a load
//! that started before the last eviction.

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

use super::{Error, freshness::Freshness};
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

/// Result of a lookup.
#[derive(Clone)]
pub(super) struct Reading {
    pub facts: Option<Arc<Facts>>,
    pub snapshot: Arc<Snapshot>,
    /// Which database answered, and when the lookup started.
    pub evidence: Evidence,
    /// Revision that the lookup reflects.
    pub applied: Revision,
}

/// Why a lookup has no result.
#[derive(Clone, Debug)]
pub(super) enum LookupError {
    /// The store did not answer within the freshness bound; a later answer could not be used.
    TooSlow,
    /// The database that answered is not the trusted one, or is not proven to still be it.
    Unproven,
    /// The limit on concurrent lookups is reached.
    Overloaded,
    /// The store failed.
    Store(Arc<store::Error>),
}

impl LookupError {
    /// Converts to the error for the caller. `lapsed`: there was no valid lease at the start.
    pub fn into_error(self, lapsed: bool) -> Error {
        match self {
            Self::Overloaded => Error::Overloaded,
            // The cached facts are not fresh, or their freshness cannot be determined.
            Self::Store(error) if !lapsed || matches!(*error, store::Error::FileLost(_)) => {
                Error::of_reading(&error)
            }
            Self::TooSlow | Self::Unproven | Self::Store(_) => Error::NotFresh,
        }
    }
}

type Outcome = Result<Reading, LookupError>;

struct Flight {
    number: u64,
    started: Duration,
    generation: Generation,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

/// Loads in progress by digest, and the limit on concurrent lookups.
pub(super) struct SingleFlight {
    open: Mutex<(u64, HashMap<Digest, Flight>)>,
    permits: Arc<Semaphore>,
    bound: Duration,
    /// Whether a caller checks when a load started before it joins; false only in tests.
    checks_start: bool,
}

/// Dependencies of a lookup.
#[derive(Clone)]
pub(super) struct LookupDeps {
    pub store: Arc<Store>,
    pub cache: Arc<Cache>,
    pub clock: Arc<dyn Clock>,
    pub freshness: Arc<Freshness>,
}

impl LookupDeps {
    /// Handles an answer from a database that is not the trusted one: renews the connections, which
    /// may lead to a former primary, and requests a heartbeat, which finds the current one.
    pub async fn doubt(&self) {
        self.store.renew_connections().await;
        self.freshness.doubted.notify_one();
    }

    /// Queries the store, and retries once on new connections if a database other than the trusted
    /// one answered. The answer of such a database is neither used nor cached, not even that a
    /// digest is unknown.
    async fn ask<A: Asked + ?Sized>(
        &self,
        bound: Duration,
        asked: &A,
    ) -> Result<(A::Lookup, Evidence, Revision), LookupError> {
        for _ in 0..2 {
            let mut proofs = self.freshness.proofs();
            let started = self.clock.monotonic();
            // Taken before the query: its result reflects everything applied here by now.
            let view = self.freshness.view(started);
            let Ok(answered) = timeout(bound, asked.look_up(&self.store)).await else {
                self.store.renew_silent_connections().await;
                return Err(LookupError::TooSlow);
            };
            let look = answered.map_err(|error| LookupError::Store(Arc::new(error)))?;
            let evidence = self
                .freshness
                .evidence_of_look_up(A::origin(&look), started)
                .filter(|evidence| evidence.tenure() == view.trusted());
            if let Some(evidence) = evidence {
                return Ok((look, evidence, view.claimed()));
            }
            self.doubt().await;
            // Wait for the requested heartbeat; without it a retry cannot succeed.
            let _ = timeout(bound, proofs.changed()).await;
        }
        Err(LookupError::Unproven)
    }
}

/// A lookup key: one digest or several.
trait Asked: Sync {
    type Lookup: Send;

    fn look_up(
        &self,
        store: &Store,
    ) -> impl Future<Output = Result<Self::Lookup, store::Error>> + Send;

    /// Returns the origin of the database that answered.
    fn origin(look: &Self::Lookup) -> &Origin;
}

impl Asked for Digest {
    type Lookup = store::Lookup;

    async fn look_up(&self, store: &Store) -> Result<store::Lookup, store::Error> {
        store.look_up(self).await
    }

    fn origin(look: &store::Lookup) -> &Origin {
        &look.origin
    }
}

impl Asked for [Digest] {
    type Lookup = store::Lookups;

    async fn look_up(&self, store: &Store) -> Result<store::Lookups, store::Error> {
        store.look_up_many(self).await
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

    /// Looks a digest up in the store. If `shared`, joins a load in progress that is younger than
    /// half the freshness bound, unless there was an eviction since it started.
    pub async fn look_up(&self, ground: &LookupDeps, digest: Digest, shared: bool) -> Outcome {
        let (number, outcome) = self.board(ground, digest, shared);
        // The first waiter to finish or give up removes the load: later callers start one.
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

/// Result of one lookup of several digests.
pub(super) struct BatchRead {
    pub facts: HashMap<Digest, Arc<Facts>>,
    pub snapshot: Snapshot,
    pub evidence: Evidence,
    pub applied: Revision,
}

impl SingleFlight {
    /// Looks several digests up in one query. The load is not shared, so it always starts after the
    /// call.
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

/// Removes a load when one of its waiters finishes or is dropped; the other waiters keep it.
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

/// Longest time for which an unknown digest is cached as such.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
