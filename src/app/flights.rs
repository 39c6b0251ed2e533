//! Reading the store for digests that are not remembered: one reading for many who ask at
//! once, and never one that began too early for whoever shares it (§9).

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

/// What a reading found, and when it began.
#[derive(Clone)]
pub(super) struct Reading {
    pub facts: Option<Arc<Facts>>,
    pub snapshot: Arc<Snapshot>,
    /// Of which database, and when it began.
    pub evidence: Evidence,
    /// A point in the history that it reflects.
    pub applied: Revision,
}

/// Why a reading found nothing out.
#[derive(Clone, Debug)]
pub(super) enum Missed {
    /// The store did not answer within the bound, past which its answer is worth nothing.
    TooSlow,
    /// The store that answered is not the one that is trusted, or nobody knows that it still is.
    Unproven,
    /// More readings than this replica starts at once.
    Overloaded,
    /// The store failed.
    Store(Arc<store::Error>),
}

impl Missed {
    /// What whoever asked hears; `lapsed`: without a lease to begin with.
    pub fn into_error(self, lapsed: bool) -> Error {
        match self {
            Self::Overloaded => Error::Overloaded,
            // What could be answered is not fresh, or whether it is cannot be found out.
            Self::Store(error) if !lapsed || matches!(*error, store::Error::FileLost(_)) => {
                Error::of_reading(&error)
            }
            Self::TooSlow | Self::Unproven | Self::Store(_) => Error::NotFresh,
        }
    }
}

type Outcome = Result<Reading, Missed>;

struct Flight {
    number: u64,
    started: Duration,
    generation: Generation,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

/// Readings under way.
pub(super) struct Flights {
    open: Mutex<(u64, HashMap<Digest, Flight>)>,
    room: Arc<Semaphore>,
    bound: Duration,
    /// Off only in a negative control: whether a waiter looks at when a flight began.
    checks_start: bool,
}

/// What a reading works with.
#[derive(Clone)]
pub(super) struct Ground {
    pub store: Arc<Store>,
    pub cache: Arc<Cache>,
    pub clock: Arc<dyn Clock>,
    pub freshness: Arc<Freshness>,
}

impl Ground {
    /// Something was learned from a database that is not the one that is trusted: either the
    /// connections lead to a former one, or there is another by now. A heartbeat tells.
    pub async fn doubt(&self) {
        self.store.renew_connections().await;
        self.freshness.doubted.notify_one();
    }

    /// Asks the store, and once more on other connections where another database answered than
    /// the one that is trusted. Its answer neither counts nor is remembered, not even that it
    /// knows nothing.
    async fn ask<A: Asked + ?Sized>(
        &self,
        bound: Duration,
        asked: &A,
    ) -> Result<(A::Look, Evidence, Revision), Missed> {
        for _ in 0..2 {
            let mut proofs = self.freshness.proofs();
            let started = self.clock.monotonic();
            // Before the store is asked: it reflects whatever is applied here already.
            let view = self.freshness.view(started);
            let Ok(answered) = timeout(bound, asked.look_up(&self.store)).await else {
                self.store.renew_connections().await;
                return Err(Missed::TooSlow);
            };
            let look = answered.map_err(|error| Missed::Store(Arc::new(error)))?;
            let evidence = self
                .freshness
                .evidence_of_look_up(A::origin(&look), started)
                .filter(|evidence| evidence.tenure() == view.trusted());
            if let Some(evidence) = evidence {
                return Ok((look, evidence, view.claimed()));
            }
            self.doubt().await;
            // The heartbeat is under way; without one there is nothing to be had.
            let _ = timeout(bound, proofs.changed()).await;
        }
        Err(Missed::Unproven)
    }
}

/// What the store is asked about.
trait Asked: Sync {
    type Look: Send;

    fn look_up(
        &self,
        store: &Store,
    ) -> impl Future<Output = Result<Self::Look, store::Error>> + Send;

    /// Which database answered.
    fn origin(look: &Self::Look) -> &Origin;
}

impl Asked for Digest {
    type Look = store::Look;

    async fn look_up(&self, store: &Store) -> Result<store::Look, store::Error> {
        store.look_up(self).await
    }

    fn origin(look: &store::Look) -> &Origin {
        &look.origin
    }
}

impl Asked for [Digest] {
    type Look = store::Looks;

    async fn look_up(&self, store: &Store) -> Result<store::Looks, store::Error> {
        store.look_up_many(self).await
    }

    fn origin(look: &store::Looks) -> &Origin {
        &look.origin
    }
}

impl Flights {
    pub fn new(at_once: usize, bound: Duration, checks_start: bool) -> Self {
        Self {
            open: Mutex::default(),
            room: Arc::new(Semaphore::new(at_once)),
            bound,
            checks_start,
        }
    }

    /// Reads the store for a digest. `shared`: a reading under way will do, if it is one that
    /// nothing has been thrown out since the start of.
    pub async fn look_up(&self, ground: &Ground, digest: Digest, shared: bool) -> Outcome {
        let (number, outcome) = self.board(ground, digest, shared);
        // Whoever comes out first, or gives up, closes the flight for those to come.
        let _seat = Seat {
            flights: self,
            digest,
            number,
        };
        outcome.await
    }

    fn board(
        &self,
        ground: &Ground,
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
        ground: &Ground,
        digest: Digest,
        (started, generation): (Duration, Generation),
    ) -> impl Future<Output = Outcome> + Send + 'static + use<> {
        let ground = ground.clone();
        let (room, bound) = (self.room.clone(), self.bound);
        async move {
            let _room = room.try_acquire().map_err(|_| Missed::Overloaded)?;
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

/// What one reading for many found, and when it began.
pub(super) struct ManyRead {
    pub facts: HashMap<Digest, Arc<Facts>>,
    pub snapshot: Snapshot,
    pub evidence: Evidence,
    pub applied: Revision,
}

impl Flights {
    /// Reads the store for many digests at once. It is shared with nobody, so whoever asks
    /// knows that it began after the asking.
    pub async fn look_up_many(
        &self,
        ground: &Ground,
        digests: &[Digest],
    ) -> Result<ManyRead, Missed> {
        let cache = &ground.cache;
        let started = ground.clock.monotonic();
        let generation = cache.generation();
        let _room = self.room.try_acquire().map_err(|_| Missed::Overloaded)?;
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
        Ok(ManyRead {
            facts,
            snapshot: looks.snapshot,
            evidence,
            applied,
        })
    }
}

/// A place in a flight. Others in it read on when one leaves.
struct Seat<'a> {
    flights: &'a Flights,
    digest: Digest,
    number: u64,
}

impl Drop for Seat<'_> {
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

/// How long a digest that nobody knows is remembered as such, at most.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
