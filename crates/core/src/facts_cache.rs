//! A cache of facts, keyed by the digest of a secret. It never holds verdicts, and the number of
//! entries is bounded. A hit briefly takes a shared lock of one shard. Only fills and evictions
//! contend for the lock of the index. The lease, not the cache, decides whether an entry is fresh
//! enough for an answer, both in a replica and in a client.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quick_cache::sync::Cache as Shards;

use crate::{
    digests::Digests,
    id::{StackUid, TokenUid},
    secret::Digest,
    timestamp::Timestamp,
    verdict::Facts,
};

/// The maximum number of unknown digests that are cached.
const UNKNOWN: usize = 10_000;
/// The number of recent evictions that are kept. A fill is compared with those that happened since
/// its read started.
const RECENT: usize = 1024;

/// The number of evictions so far. A fill carries the number that was current before its read of
/// the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// A cache with two kinds of entries: facts by digest, and digests that are known to be unknown,
/// each with the time at which it expires. The type `F` contains the facts, and may contain more.
pub struct Cache<F = Facts> {
    facts: Shards<Digest, Arc<F>>,
    unknown: Shards<Digest, Duration>,
    evictions: AtomicU64,
    index: Mutex<Index>,
    capacity: usize,
    /// Whether a fill is compared with recent evictions. Disabled only in a test that shows why the
    /// comparison is needed.
    checks_generation: bool,
}

/// The subject of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One token.
    Token(TokenUid),
    /// A stack, with all of its tokens.
    Stack(StackUid),
}

#[derive(Default)]
struct Index {
    by_token: HashMap<TokenUid, Digests>,
    by_stack: HashMap<StackUid, Digests>,
    /// The number of calls of `note` since the index was last rebuilt.
    noted: usize,
    recent: VecDeque<Evicted>,
    /// The number of changes with an unknown outcome, by subject.
    barred: HashMap<Subject, usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Evicted {
    Subject(Subject),
    Everything,
}

impl Subject {
    fn is_of(&self, facts: &Facts) -> bool {
        match self {
            Self::Token(uid) => *uid == facts.token.uid,
            Self::Stack(uid) => *uid == facts.stack.uid,
        }
    }
}

impl Index {
    fn is_barred(&self, facts: &Facts) -> bool {
        !self.barred.is_empty()
            && [
                Subject::Token(facts.token.uid),
                Subject::Stack(facts.stack.uid),
            ]
            .iter()
            .any(|subject| self.barred.contains_key(subject))
    }

    /// Removes all digests from the index, but keeps the recent evictions and the bars.
    fn reset_index(&mut self) {
        *self = Self {
            recent: std::mem::take(&mut self.recent),
            barred: std::mem::take(&mut self.barred),
            ..Self::default()
        };
    }

    fn note(&mut self, digest: Digest, facts: &Facts) {
        let lists = [
            self.by_token.entry(facts.token.uid).or_default(),
            self.by_stack.entry(facts.stack.uid).or_default(),
        ];
        for list in lists {
            list.insert(digest);
        }
        self.noted += 1;
    }
}

impl<F: Borrow<Facts>> Cache<F> {
    /// Creates an empty cache for the facts of at most `capacity` digests.
    #[must_use]
    pub fn new(capacity: usize, checks_generation: bool) -> Self {
        Self {
            facts: Shards::new(capacity),
            unknown: Shards::new(UNKNOWN),
            evictions: AtomicU64::new(0),
            index: Mutex::default(),
            capacity,
            checks_generation,
        }
    }

    /// Returns the cached facts of a digest, if there are any.
    pub fn get(&self, digest: &Digest) -> Option<Arc<F>> {
        self.facts.get(digest)
    }

    /// Returns until when a digest is cached as unknown. Returns `None` if it is not cached as
    /// unknown.
    pub fn unknown_until(&self, digest: &Digest) -> Option<Duration> {
        self.unknown.get(digest)
    }

    /// Caches a digest as unknown until `until`, unless everything was evicted since `read_at`.
    /// Other evictions are not checked, because no change can make the entry wrong: a new token
    /// gets a random secret that nobody can have presented before. But another database may know
    /// the digest, and a switch to another database evicts everything.
    pub fn note_unknown(&self, digest: Digest, until: Duration, read_at: Generation) {
        let index = self.index();
        let emptied = |index: &Index| self.was(index, read_at, |of| of == Evicted::Everything);
        if !(self.checks_generation && emptied(&index)) {
            self.unknown.insert(digest, until);
        }
    }

    /// Returns the current generation. Must be called before the read of the store starts.
    pub fn generation(&self) -> Generation {
        Generation(self.evictions.load(Ordering::Acquire))
    }

    /// Caches facts, unless their subject is barred or was evicted since `read_at`. Without this
    /// check, a late fill would bring back facts that a change has just evicted. Returns whether
    /// the facts were cached.
    pub fn fill(&self, digest: Digest, facts: &Arc<F>, read_at: Generation) -> bool {
        let mut index = self.index();
        if self.checks_generation && self.was_evicted(&index, (**facts).borrow(), read_at) {
            return false;
        }
        if index.is_barred((**facts).borrow()) {
            return false;
        }
        self.facts.insert(digest, facts.clone());
        index.note(digest, (**facts).borrow());
        // The shards evict entries on their own when they are full, and an eviction removes a
        // digest from only one of the two maps. Both leave stale digests in the index, so the index
        // is rebuilt from time to time.
        if index.noted > 2 * self.capacity + RECENT {
            index.reset_index();
            for (digest, facts) in self.facts.iter() {
                index.note(digest, (*facts).borrow());
            }
        }
        true
    }

    /// Evicts the facts of a token.
    pub fn evict_token(&self, uid: TokenUid) {
        self.evict(&mut self.index(), Subject::Token(uid));
    }

    /// Evicts the facts of all tokens of a stack.
    pub fn evict_stack(&self, uid: StackUid) {
        self.evict(&mut self.index(), Subject::Stack(uid));
    }

    fn evict(&self, index: &mut Index, subject: Subject) {
        self.note(index, Evicted::Subject(subject));
        let digests = match subject {
            Subject::Token(uid) => index.by_token.remove(&uid),
            Subject::Stack(uid) => index.by_stack.remove(&uid),
        };
        digests.unwrap_or_default().for_each(|digest| {
            self.facts.remove(digest);
        });
    }

    /// Bars the subjects of a change whose outcome is unknown. Evicts their facts and refuses
    /// fills, so that every request reads the store. When the guard is dropped, their facts are
    /// evicted once more, so that a read that started before the outcome was known cannot be filled
    /// in afterwards.
    pub fn bar(self: &Arc<Self>, subjects: &[Subject]) -> CacheBarrier<F> {
        let mut index = self.index();
        for subject in subjects {
            *index.barred.entry(*subject).or_default() += 1;
            self.evict(&mut index, *subject);
        }
        drop(index);
        CacheBarrier {
            cache: self.clone(),
            subjects: subjects.to_owned(),
        }
    }

    fn lift(&self, subjects: &[Subject]) {
        let mut index = self.index();
        for subject in subjects {
            self.evict(&mut index, *subject);
            if let Entry::Occupied(mut count) = index.barred.entry(*subject) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Evicts the facts of tokens that are revoked, ended or expired at `now`, and of sessions that
    /// were ended.
    pub fn evict_dead(&self, now: Timestamp) {
        let expired = |facts: &Facts| facts.expires_at().is_some_and(|at| at <= now);
        let over = |facts: &Facts| facts.session.as_ref().is_some_and(|session| session.ended);
        let dead = |facts: &Facts| {
            facts.token.revoked || facts.token.ended || over(facts) || expired(facts)
        };
        self.facts.retain(|_, facts| !dead(facts.as_ref().borrow()));
    }

    /// Evicts all entries.
    pub fn clear(&self) {
        let mut index = self.index();
        self.note(&mut index, Evicted::Everything);
        self.facts.clear();
        index.reset_index();
        self.unknown.clear();
    }

    /// Returns the number of digests whose facts are cached.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.facts.len()
    }

    /// Records an eviction. Callers must remove the entries after this call, so that the removal
    /// also removes a fill that did not see the new count.
    fn note(&self, index: &mut Index, evicted: Evicted) {
        self.evictions.fetch_add(1, Ordering::AcqRel);
        index.recent.push_back(evicted);
        if index.recent.len() > RECENT {
            index.recent.pop_front();
        }
    }

    fn was_evicted(&self, index: &Index, facts: &Facts, read_at: Generation) -> bool {
        self.was(index, read_at, |evicted| match evicted {
            Evicted::Subject(subject) => subject.is_of(facts),
            Evicted::Everything => true,
        })
    }

    /// Returns whether an eviction since `read_at` satisfies `such`. Also returns `true` if more
    /// evictions have happened since then than are kept.
    fn was(&self, index: &Index, read_at: Generation, such: impl Fn(Evicted) -> bool) -> bool {
        let since = self.evictions.load(Ordering::Acquire) - read_at.0;
        match usize::try_from(since) {
            Ok(since) if since <= index.recent.len() => {
                index.recent.iter().rev().take(since).any(|of| such(*of))
            }
            _ => true,
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard that bars the subjects of a change from the cache until it is dropped.
#[must_use = "dropping it lifts the bar"]
pub struct CacheBarrier<F: Borrow<Facts> = Facts> {
    cache: Arc<Cache<F>>,
    subjects: Vec<Subject>,
}

impl<F: Borrow<Facts>> Drop for CacheBarrier<F> {
    fn drop(&mut self) {
        self.cache.lift(&self.subjects);
    }
}
