//! Tracks when each service last used each token. Each active answer records a use in memory, and a
//! background task writes the uses to the store. Recording a use briefly locks one of many shards,
//! and allocates memory only for a new (token, service) pair. The number of pairs is bounded.

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

/// Number of shards. It is large enough that two cores rarely contend for the same shard, and that
/// a scan of one shard is quick.
const SHARDS: usize = 128;
/// Shortest interval between two writes for the same token.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// Holds the uses that are not in the store yet, and those that were written within the last
/// minute.
pub(super) struct LastUsedTracker {
    shards: [Mutex<Shard>; SHARDS],
    pairs: AtomicUsize,
    max_pairs: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Shard {
    tokens: HashMap<TokenUid, TokenUses>,
    /// Interned services, shared by all tokens in the shard.
    services: HashSet<Arc<Actor>>,
}

/// The recorded uses of one token.
#[derive(Default)]
struct TokenUses {
    by: Vec<ServiceUses>,
    /// Monotonic time of the last write for this token.
    written: Option<Duration>,
}

/// The last use of a token by one service.
struct ServiceUses {
    service: Arc<Actor>,
    at: Timestamp,
    /// The time of use that the store holds; `None` if none was written yet.
    stored: Option<Timestamp>,
}

/// Which uses to write.
#[derive(Clone, Copy)]
enum DueUses {
    /// Uses of tokens for which nothing was written within the last minute. The field is the
    /// current monotonic time.
    Due(Duration),
    /// All uses.
    All,
}

impl ServiceUses {
    fn waits(&self) -> bool {
        self.stored.is_none_or(|stored| stored < self.at)
    }
}

impl TokenUses {
    fn by(&mut self, service: &Actor) -> Option<&mut ServiceUses> {
        // Ignores the kind of caller, because the store identifies a service by issuer and subject
        // only.
        self.by.iter_mut().find(|used| {
            used.service.subject == service.subject && used.service.issuer == service.issuer
        })
    }

    fn waits(&self) -> bool {
        self.by.iter().any(ServiceUses::waits)
    }

    fn was_just_written(&self, now: Duration) -> bool {
        self.written
            .is_some_and(|at| now.saturating_sub(at) < WRITE_EVERY)
    }

    fn is_to_be_written(&self, which: DueUses) -> bool {
        self.waits()
            && match which {
                DueUses::Due(now) => !self.was_just_written(now),
                DueUses::All => true,
            }
    }
}

impl LastUsedTracker {
    /// Creates a tracker for at most `max_pairs` (token, service) pairs. 0 turns tracking off.
    pub fn new(max_pairs: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            pairs: AtomicUsize::new(0),
            max_pairs,
            metrics,
        }
    }

    /// Records that `service` was answered at `at` that the token is active.
    pub fn note(&self, token: TokenUid, service: &Actor, at: Timestamp) {
        if self.max_pairs == 0 {
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
        if !self.reserve_entry() {
            self.metrics.usage_dropped.inc();
            return;
        }
        let service = services.get(service).cloned().unwrap_or_else(|| {
            let service = Arc::new(service.clone());
            services.insert(service.clone());
            service
        });
        let used = tokens.entry(token).or_default();
        // Almost every token is used by one service only.
        used.by.reserve_exact(1);
        used.by.push(ServiceUses {
            service,
            at,
            stored: None,
        });
        self.metrics.usage_waiting.inc();
    }

    /// Records that a use was written outside this tracker. Delays the next write for the token.
    pub fn note_written(&self, token: TokenUid, now: Duration) {
        if self.pairs.load(Ordering::Relaxed) < self.max_pairs {
            self.shard(token).tokens.entry(token).or_default().written = Some(now);
        }
    }

    /// Returns the last use of the token that this replica still holds in memory.
    pub fn last_use(&self, token: TokenUid) -> Option<Timestamp> {
        let shard = self.shard(token);
        let used = shard.tokens.get(&token)?;
        used.by.iter().map(|used| used.at).max()
    }

    /// Returns the last use of the token by each service that this replica still holds in memory.
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

    /// Returns about `limit` uses to write. Starts at the shard number `from` and advances it;
    /// after the last shard, no uses are left.
    fn some(&self, from: &mut usize, which: DueUses, limit: usize) -> Vec<Use> {
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

    /// Marks uses as written to the store, by a write that started at `now`.
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

    /// Removes tokens whose uses are all stored and that were not written within the last minute.
    fn drop_stored(&self, now: Duration) {
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

    fn reserve_entry(&self) -> bool {
        let taken = self.pairs.fetch_add(1, Ordering::Relaxed) < self.max_pairs;
        if !taken {
            self.pairs.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn shard(&self, token: TokenUid) -> MutexGuard<'_, Shard> {
        // The last byte of the id is random.
        let [.., last] = *token.as_untyped_uuid().as_bytes();
        lock(&self.shards[usize::from(last) % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
