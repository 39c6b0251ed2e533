//! A cache of facts by digest; it never holds verdicts (§9). The number of entries is bounded. A
//! hit takes a brief shared lock of one shard; only fills and evictions contend for the lock of the
//! index. The cache does not decide whether an entry may be used for an answer: the lease does,
//! both in a replica and in a client.

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
    id::{StackUid, TokenUid},
    secret::Digest,
    timestamp::Timestamp,
    verdict::Facts,
};

/// How many unknown digests are cached.
const UNKNOWN: usize = 10_000;
/// How many recent evictions are kept, so that a fill in flight can be compared with each of them.
const RECENT: usize = 1024;

/// The number of evictions so far. A fill carries the value from before its read of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// A cache of facts by digest, in a type `F` that can hold more than the facts, and of unknown
/// digests with the instant at which each entry expires.
pub struct Cache<F = Facts> {
    facts: Shards<Digest, Arc<F>>,
    unknown: Shards<Digest, Duration>,
    evictions: AtomicU64,
    index: Mutex<Index>,
    capacity: usize,
    /// Whether a fill is compared with recent evictions. Off only in a negative control.
    checks_generation: bool,
}

/// The subject of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One token.
    Token(TokenUid),
    /// All tokens of a stack.
    Stack(StackUid),
}

#[derive(Default)]
struct Index {
    by_token: HashMap<TokenUid, Vec<Digest>>,
    by_stack: HashMap<StackUid, Vec<Digest>>,
    /// How many calls of `note` there were since the index was last rebuilt.
    noted: usize,
    recent: VecDeque<Evicted>,
    /// The number of changes of unknown outcome, by subject.
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

    /// Removes all digests from the index. Keeps the recent evictions and the bars.
    fn begin_again(&mut self) {
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
            if !list.contains(&digest) {
                list.push(digest);
            }
        }
        self.noted += 1;
    }
}

impl<F: Borrow<Facts>> Cache<F> {
    /// Returns an empty cache for at most `capacity` digests.
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

    /// Returns the facts of a digest, if they are cached.
    pub fn get(&self, digest: &Digest) -> Option<Arc<F>> {
        self.facts.get(digest)
    }

    /// Returns whether a digest is cached as unknown and the entry has not expired at `now`.
    pub fn is_unknown(&self, digest: &Digest, now: Duration) -> bool {
        self.unknown.get(digest).is_some_and(|until| now < until)
    }

    /// Caches a digest as unknown until `until`, unless everything was evicted since `read_at`. No
    /// later change can make the entry wrong: a new token gets a fresh random secret, which nobody
    /// can have asked about before. But another database may know the digest, hence the check.
    pub fn note_unknown(&self, digest: Digest, until: Duration, read_at: Generation) {
        let index = self.index();
        let emptied = |index: &Index| self.was(index, read_at, |of| of == Evicted::Everything);
        if !(self.checks_generation && emptied(&index)) {
            self.unknown.insert(digest, until);
        }
    }

    /// Returns the current generation. Call this before a read of the store is started.
    pub fn generation(&self) -> Generation {
        Generation(self.evictions.load(Ordering::Acquire))
    }

    /// Caches facts, unless their subject is barred or was evicted since `read_at`: a late fill
    /// must not bring back what a change has just evicted. Returns whether the facts were cached.
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
        // digest from only one of the two lists. So the index is rebuilt from time to time.
        if index.noted > 2 * self.capacity + RECENT {
            index.begin_again();
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
        for digest in digests.unwrap_or_default() {
            self.facts.remove(&digest);
        }
    }

    /// Bars the subjects of a change whose outcome is unknown: evicts their facts and refuses
    /// fills, so that the store is read. Dropping the guard evicts them once more, so that no read
    /// from before the outcome is filled in either.
    pub fn bar(self: &Arc<Self>, subjects: &[Subject]) -> Bar<F> {
        let mut index = self.index();
        for subject in subjects {
            *index.barred.entry(*subject).or_default() += 1;
            self.evict(&mut index, *subject);
        }
        drop(index);
        Bar {
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

    /// Evicts facts that can only say that a token is dead: revoked, ended, or expired at `now`.
    pub fn forget_dead(&self, now: Timestamp) {
        let expired = |facts: &Facts| facts.token.expires_at.is_some_and(|at| at <= now);
        let dead = |facts: &Facts| facts.token.revoked || facts.token.ended || expired(facts);
        self.facts.retain(|_, facts| !dead(facts.as_ref().borrow()));
    }

    /// Evicts everything.
    pub fn clear(&self) {
        let mut index = self.index();
        self.note(&mut index, Evicted::Everything);
        self.facts.clear();
        index.begin_again();
        self.unknown.clear();
    }

    /// Returns the number of digests whose facts are cached.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.facts.len()
    }

    /// Records an eviction. The entries are removed only after the count is incremented: a fill
    /// that misses the new count is caught by the removal.
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

    /// Returns whether an eviction since `read_at` matches `such`. Also returns `true` if there
    /// were more evictions since then than are kept.
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
pub struct Bar<F: Borrow<Facts> = Facts> {
    cache: Arc<Cache<F>>,
    subjects: Vec<Subject>,
}

impl<F: Borrow<Facts>> Drop for Bar<F> {
    fn drop(&mut self) {
        self.cache.lift(&self.subjects);
    }
}
