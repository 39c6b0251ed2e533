//! Which service used which token when: noted in memory with every active answer, and written
//! down behind the answers, never in their way. A note takes a brief lock of one shard of many
//! and, once the pair is known, no memory. Bounded by the number of pairs.

pub mod writer;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use newtype_uuid::GenericUuid as _;

use crate::{
    domain::{caller::Actor, id::TokenUid, impact::ServiceUse, timestamp::Timestamp},
    metrics::Metrics,
    store::Use,
};

/// So many that two cores rarely meet in one, and that a pass over one takes no time.
const SHARDS: usize = 128;
/// How often a token is written at most.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// What is not on record yet, or was put there within the last minute.
pub(super) struct Uses {
    shards: [Mutex<Shard>; SHARDS],
    pairs: AtomicUsize,
    room: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shard {
    tokens: HashMap<TokenUid, Used>,
    /// One copy of each service for all the tokens here.
    services: HashSet<Arc<Actor>>,
}

/// What is noted of one token.
#[derive(Default)]
struct Used {
    by: Vec<UsedBy>,
    /// When it was last written, on the monotonic clock.
    written: Option<Duration>,
}

/// One service's part in it.
struct UsedBy {
    service: Arc<Actor>,
    at: Timestamp,
    /// What is on record.
    stored: Option<Timestamp>,
}

/// Which uses are to be written.
#[derive(Clone, Copy)]
enum Which {
    /// Those of tokens that were not written within the last minute, as seen at this instant of
    /// the monotonic clock.
    Due(Duration),
    /// Every one.
    All,
}

impl UsedBy {
    fn waits(&self) -> bool {
        self.stored.is_none_or(|stored| stored < self.at)
    }
}

impl Used {
    fn by(&mut self, service: &Actor) -> Option<&mut UsedBy> {
        // The kind is not looked at: a record is of an issuer and a subject.
        self.by.iter_mut().find(|used| {
            used.service.subject == service.subject && used.service.issuer == service.issuer
        })
    }

    fn waits(&self) -> bool {
        self.by.iter().any(UsedBy::waits)
    }

    fn was_just_written(&self, now: Duration) -> bool {
        self.written
            .is_some_and(|at| now.saturating_sub(at) < WRITE_EVERY)
    }

    fn is_to_be_written(&self, which: Which) -> bool {
        self.waits()
            && match which {
                Which::Due(now) => !self.was_just_written(now),
                Which::All => true,
            }
    }
}

impl Uses {
    /// With room for so many pairs of token and service; none: nothing is noted at all.
    pub fn new(room: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            pairs: AtomicUsize::new(0),
            room,
            metrics,
        }
    }

    /// Notes that a service was answered at this instant that the token is active.
    pub fn note(&self, token: TokenUid, service: &Actor, at: Timestamp) {
        if self.room == 0 {
            return;
        }
        let mut shard = self.shard(token);
        let Shard { tokens, services } = &mut *shard;
        if let Some(known) = tokens.get_mut(&token).and_then(|used| used.by(service)) {
            if known.at < at {
                if !known.waits() {
                    self.metrics.usage_waiting.inc();
                }
                known.at = at;
            }
            return;
        }
        if !self.take_room() {
            self.metrics.usage_dropped.inc();
            return;
        }
        let service = services.get(service).cloned().unwrap_or_else(|| {
            let service = Arc::new(service.clone());
            services.insert(service.clone());
            service
        });
        let used = tokens.entry(token).or_default();
        // Nearly every token has one service.
        used.by.reserve_exact(1);
        used.by.push(UsedBy {
            service,
            at,
            stored: None,
        });
        self.metrics.usage_waiting.inc();
    }

    /// Notes that something of the token was written by other means, so that it is not written
    /// again at once.
    pub fn note_written(&self, token: TokenUid, now: Duration) {
        if self.pairs.load(Ordering::Relaxed) < self.room {
            self.shard(token).tokens.entry(token).or_default().written = Some(now);
        }
    }

    /// When the token was last used, as far as this is known here.
    pub fn last_use(&self, token: TokenUid) -> Option<Timestamp> {
        let shard = self.shard(token);
        let used = shard.tokens.get(&token)?;
        used.by.iter().map(|used| used.at).max()
    }

    /// By which services the token was used, as far as this is known here.
    pub fn uses(&self, token: TokenUid) -> Vec<ServiceUse> {
        let shard = self.shard(token);
        let used = shard.tokens.get(&token);
        let by = used.into_iter().flat_map(|used| &used.by);
        by.map(|by| ServiceUse {
            service: by.service.as_ref().clone(),
            last_used_at: by.at,
        })
        .collect()
    }

    /// Some of what is to be written, about `limit` at most. `from` says at which shard to go
    /// on, and is beyond the last when there is no more.
    fn some(&self, from: &mut usize, which: Which, limit: usize) -> Vec<Use> {
        let mut found = Vec::new();
        while let Some(shard) = self.shards.get(*from) {
            let shard = lock(shard);
            let due = shard
                .tokens
                .iter()
                .filter(|(_, used)| used.is_to_be_written(which));
            for (token, used) in due {
                let waiting = used.by.iter().filter(|by| by.waits());
                found.extend(waiting.map(|by| Use {
                    token: *token,
                    service: by.service.clone(),
                    at: by.at,
                }));
                if found.len() >= limit {
                    return found;
                }
            }
            *from += 1;
        }
        found
    }

    /// Notes what was written, in a write begun at `now`.
    fn note_stored(&self, uses: &[Use], now: Duration) {
        for stored in uses {
            let mut shard = self.shard(stored.token);
            let Some(token) = shard.tokens.get_mut(&stored.token) else {
                continue;
            };
            token.written = Some(now);
            if let Some(by) = token.by(&stored.service) {
                let waited = by.waits();
                by.stored = by.stored.max(Some(stored.at));
                if waited && !by.waits() {
                    self.metrics.usage_waiting.dec();
                }
            }
        }
    }

    /// Forgets what is on record and need not be held back any more.
    fn forget_stored(&self, now: Duration) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { tokens, services } = &mut *shard;
            let mut gone = 0;
            tokens.retain(|_, used| {
                let stays = used.waits() || used.was_just_written(now);
                gone += if stays { 0 } else { used.by.len() };
                stays
            });
            if tokens.len() < tokens.capacity() / 4 {
                tokens.shrink_to_fit();
            }
            services.retain(|service| Arc::strong_count(service) > 1);
            self.pairs.fetch_sub(gone, Ordering::Relaxed);
        }
    }

    fn take_room(&self) -> bool {
        let taken = self.pairs.fetch_add(1, Ordering::Relaxed) < self.room;
        if !taken {
            self.pairs.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn shard(&self, token: TokenUid) -> MutexGuard<'_, Shard> {
        // The last bytes of the id are random.
        let [.., last] = *token.as_untyped_uuid().as_bytes();
        lock(&self.shards[usize::from(last) % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
