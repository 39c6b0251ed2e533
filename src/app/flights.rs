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
use tokio::sync::Semaphore;

use super::Error;
use crate::{
    domain::{clock::Clock, revision::Snapshot, secret::Digest, verdict::Facts},
    memory::{Cache, Generation},
    store::{self, Store},
};

/// What a reading found, and when it began.
#[derive(Clone)]
pub(super) struct Reading {
    pub facts: Option<Arc<Facts>>,
    pub snapshot: Arc<Snapshot>,
    pub started: Duration,
}

/// Why a reading found nothing out.
#[derive(Clone, Debug)]
pub(super) enum Missed {
    /// The store did not answer within the bound, past which its answer is worth nothing.
    TooSlow,
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
            Self::TooSlow | Self::Store(_) => Error::NotFresh,
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
pub(super) struct Ground {
    pub store: Arc<Store>,
    pub cache: Arc<Cache>,
    pub clock: Arc<dyn Clock>,
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
        let (store, cache) = (ground.store.clone(), ground.cache.clone());
        let (room, bound) = (self.room.clone(), self.bound);
        async move {
            let _room = room.try_acquire().map_err(|_| Missed::Overloaded)?;
            let Ok(answered) = tokio::time::timeout(bound, store.look_up(&digest)).await else {
                store.renew_connections().await;
                return Err(Missed::TooSlow);
            };
            let look = answered.map_err(|error| Missed::Store(Arc::new(error)))?;
            let facts = look.facts.map(Arc::new);
            match &facts {
                Some(facts) => {
                    cache.fill(digest, facts, generation);
                }
                None => cache.note_unknown(digest, started + bound.min(UNKNOWN_FOR)),
            }
            Ok(Reading {
                facts,
                snapshot: Arc::new(look.snapshot),
                started,
            })
        }
    }
}

/// What one reading for many found, and when it began.
pub(super) struct ManyRead {
    pub facts: HashMap<Digest, Arc<Facts>>,
    pub snapshot: Snapshot,
    pub started: Duration,
}

impl Flights {
    /// Reads the store for many digests at once. It is shared with nobody, so whoever asks
    /// knows that it began after the asking.
    pub async fn look_up_many(
        &self,
        ground: &Ground,
        digests: &[Digest],
    ) -> Result<ManyRead, Missed> {
        let Ground {
            store,
            cache,
            clock,
        } = ground;
        let started = clock.monotonic();
        let generation = cache.generation();
        let _room = self.room.try_acquire().map_err(|_| Missed::Overloaded)?;
        let Ok(answered) = tokio::time::timeout(self.bound, store.look_up_many(digests)).await
        else {
            store.renew_connections().await;
            return Err(Missed::TooSlow);
        };
        let looks = answered.map_err(|error| Missed::Store(Arc::new(error)))?;
        let found = looks.facts.into_iter();
        let facts: HashMap<_, _> = found.map(|(of, facts)| (of, Arc::new(facts))).collect();
        for digest in digests {
            match facts.get(digest) {
                Some(facts) => {
                    cache.fill(*digest, facts, generation);
                }
                None => cache.note_unknown(*digest, started + self.bound.min(UNKNOWN_FOR)),
            }
        }
        Ok(ManyRead {
            facts,
            snapshot: looks.snapshot,
            started,
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
