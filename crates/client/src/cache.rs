//! The cache of this process, and the rule for how long it may be used for answers. A replica uses
//! the same rule for its own cache. Where a replica polls the change log, the client relies on an
//! answered ping. Apart from the clock, this module does no I/O and does not depend on connections.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    answer::{Answer, CachedFacts},
    question::Question,
};
use stacktoken_core::{
    catalogue::Catalogue,
    clock::Clock,
    facts_cache::{Cache, Generation},
    id::{StackUid, TokenUid},
    lease::Lease,
    revision::Revision,
    secret::{self, Digest},
    timestamp::Timestamp,
    verdict::{self, ActionQuestion, Facts, Verdict},
};

/// The value of `ahead` until something is known about the server's clock.
const NEVER: i64 = i64::MIN;

/// How long cached facts may be used for answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The freshness bound (R12), which limits the age of an answer.
    pub freshness: Duration,
    /// The time after which the server is called again, so that it records that the token is in
    /// use.
    pub reuse_for: Duration,
}

pub(super) struct VerdictCache {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    cache: Cache<CachedFacts>,
    /// The catalogue of the server that is watched; the built-in one before the first stream.
    catalogue: RwLock<Catalogue>,
    /// Every change that was acknowledged before this instant of the local clock has been received
    /// and applied. The value is in nanoseconds plus one, or 0 if no such instant is known.
    covered: AtomicU64,
    /// An estimate of the server's clock minus the local monotonic clock, in microseconds. It may
    /// be too high but never too low.
    ahead: AtomicI64,
    /// Whether the server evaluates actions with the same catalogue as `catalogue`.
    knows_catalogue: AtomicBool,
    stream: Mutex<Stream>,
}

/// The state of the `Watch` stream.
#[derive(Default)]
struct Stream {
    /// The number of streams that were opened so far, including the current one.
    number: u64,
    /// Whether a ping on this stream was answered.
    live: bool,
    /// The revisions up to which every change was received, on this stream or an earlier one.
    received: Option<EventRevisions>,
}

/// The revisions of the last event.
#[derive(Clone)]
pub(super) struct EventRevisions {
    /// The revision from which the next stream can resume.
    pub revision: String,
    /// The revision that an answer must reflect to be cached.
    pub min_revision: String,
}

impl EventRevisions {
    /// Returns the revisions to keep after this event. `before` are the revisions of the previous
    /// event. `min_revision` never decreases, not even with a new stream. Otherwise, a replica that
    /// has not yet applied all changes that were received so far could fill the cache with facts
    /// that these changes had evicted.
    fn after(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        let [was, is] =
            [&before.min_revision, &self.min_revision].map(|text| Revision::parse(text));
        let goes_back = match (was, is) {
            (Ok(was), Ok(is)) => was.epoch == is.epoch && was.position > is.position,
            (Ok(_), Err(_)) => true,
            (Err(_), _) => false,
        };
        if goes_back {
            self.min_revision.clone_from(&before.min_revision);
        }
        self
    }
}

/// The subject of a change. Its facts are evicted from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Token(TokenUid),
    Stack(StackUid),
    /// A kind of subject that this client does not know.
    Unknown,
}

/// The state at the time when a question was sent. With it, the answer can be cached later.
pub(super) struct PendingRequest {
    stream: u64,
    generation: Generation,
    /// The revision that the answer must reflect.
    pub min_revision: String,
}

impl VerdictCache {
    pub fn new(clock: Arc<dyn Clock>, bounds: Bounds, entries: usize) -> Self {
        Self {
            clock,
            bounds,
            cache: Cache::new(entries, true),
            catalogue: RwLock::new(Catalogue::builtin()),
            covered: AtomicU64::new(0),
            ahead: AtomicI64::new(NEVER),
            knows_catalogue: AtomicBool::new(false),
            stream: Mutex::default(),
        }
    }

    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Returns an answer from the cache, if the cache may be used for this question.
    pub fn recall(&self, question: &Question<'_>) -> Option<Answer> {
        let min = question.revision().map(Revision::parse);
        let min = min.transpose().ok()?;
        if !question.is_plain() {
            return None;
        }
        let asked = !question.actions.is_empty();
        let Some(digest) = secret::recognize(question.token) else {
            // The server would do the same check and return the same verdict.
            return Some(Answer::new(Verdict::NotRecognized, None, asked, true));
        };
        // The lease and the revision must be read before the cache. Otherwise, a pong that arrives
        // after an eviction could wrongly confirm facts that were read before the eviction.
        let lease = self.lease();
        let reflects = min.is_none_or(|min| self.has_received(min));
        let kept = self.cache.get(&digest)?;
        let now = self.clock.monotonic();
        let may = lease.covers(now, self.bounds.freshness)
            && now.saturating_sub(kept.asked_at) <= self.bounds.reuse_for
            && (!asked || self.knows_catalogue.load(Ordering::Acquire))
            && reflects;
        if !may {
            return None;
        }
        let at = self.server_now(now)?;
        let key = question.stack_api_key;
        let verdict = self.evaluate(&kept.facts, (key, question.actions), at);
        // The token was active when it was cached, so it can only have ended because time passed.
        // But the local estimate of the server's time may be too high by a round trip. So the
        // server must decide whether the token has ended.
        (!matches!(verdict, Verdict::Inactive(_)))
            .then(|| Answer::new(verdict, Some(kept), asked, true))
    }

    /// Evaluates facts in the same way as a server with this catalogue.
    pub fn evaluate(
        &self,
        facts: &Facts,
        (key, actions): (&str, &[ActionQuestion]),
        at: Timestamp,
    ) -> Verdict {
        let catalogue = self.catalogue.read();
        let catalogue = catalogue.unwrap_or_else(PoisonError::into_inner);
        verdict::evaluate(&catalogue, Some(facts), key, actions, at)
    }

    /// Captures the stream state before a question is sent, so that its answer can be cached later.
    /// Returns `None` if the answer cannot be cached.
    pub fn pending(&self) -> Option<PendingRequest> {
        let stream = self.stream();
        let received = stream.received.as_ref().filter(|_| stream.live)?;
        Some(PendingRequest {
            stream: stream.number,
            // The generation is read under the same lock under which changes are applied. So an
            // eviction that the generation does not include is not included in the revision either.
            generation: self.cache.generation(),
            min_revision: received.min_revision.clone(),
        })
    }

    /// Caches the facts of an answer, unless the stream has ended or was replaced, or the subject
    /// of the answer was evicted, since the question was sent. Returns whether the facts were
    /// cached.
    pub fn keep(&self, pending: &PendingRequest, digest: Digest, kept: &Arc<CachedFacts>) -> bool {
        let stream = self.stream();
        stream.live
            && stream.number == pending.stream
            && self.cache.fill(digest, kept, pending.generation)
    }

    /// Updates the estimate of the server's clock. `evaluated_at` is the time on the server's clock
    /// while a question was processed, and `sent` is when the question was sent.
    pub fn note_server_time(&self, sent: Duration, evaluated_at: Timestamp) {
        let ahead = evaluated_at.as_micros().saturating_sub(micros(sent));
        self.ahead.fetch_max(ahead, Ordering::AcqRel);
    }

    /// Returns whether every change up to this revision has been received.
    pub fn has_received(&self, min: Revision) -> bool {
        let stream = self.stream();
        let received = stream.received.as_ref();
        let received = received.and_then(|received| Revision::parse(&received.revision).ok());
        received.is_some_and(|received| {
            received.epoch == min.epoch && min.position <= received.position
        })
    }

    /// Returns the revision from which a new stream can resume. If no revision was received yet,
    /// clears the cache and returns `None`.
    pub fn resume_from(&self) -> Option<String> {
        let resume = self
            .stream()
            .received
            .as_ref()
            .map(|received| received.revision.clone());
        let resume = resume.filter(|revision| !revision.is_empty());
        if resume.is_none() {
            self.reset();
        }
        resume
    }

    /// Records that a stream was opened. `catalogue` is the catalogue of its server, or `None` if
    /// this client cannot evaluate actions with that catalogue.
    pub fn begin(&self, catalogue: Option<Catalogue>) {
        let mut stream = self.stream();
        stream.number += 1;
        stream.live = false;
        let is_known = catalogue.is_some();
        if let Some(catalogue) = catalogue {
            let current = self.catalogue.write();
            *current.unwrap_or_else(PoisonError::into_inner) = catalogue;
        }
        self.knows_catalogue.store(is_known, Ordering::Release);
    }

    /// Applies a change that the stream reported.
    pub fn change(&self, subject: Subject, received: EventRevisions) {
        let mut stream = self.stream();
        stream.received = Some(received.after(stream.received.as_ref()));
        match subject {
            Subject::Token(uid) => self.cache.evict_token(uid),
            Subject::Stack(uid) => self.cache.evict_stack(uid),
            Subject::Unknown => self.cache.clear(),
        }
    }

    /// Records that a ping sent at `sent` was answered.
    pub fn pong(&self, sent: Duration, staleness: Duration, received: EventRevisions) {
        let mut stream = self.stream();
        stream.received = Some(received.after(stream.received.as_ref()));
        stream.live = true;
        if let Some(covered) = sent.checked_sub(staleness) {
            self.covered.fetch_max(stamp(covered), Ordering::AcqRel);
        }
    }

    /// Records that the stream ended. The cache may still be used until the lease expires, because
    /// the lease confirms the changes up to that time.
    pub fn end(&self) {
        self.stream().live = false;
    }

    /// Discards everything that was received, and clears the cache.
    pub fn reset(&self) {
        let mut stream = self.stream();
        stream.live = false;
        stream.received = None;
        self.covered.store(0, Ordering::Release);
        self.cache.clear();
    }

    /// Returns the age of the lease; `None` if there is no lease.
    pub fn lease_age(&self) -> Option<Duration> {
        self.lease().age(self.clock.monotonic())
    }

    /// Returns the number of cached secrets.
    pub fn entries(&self) -> usize {
        self.cache.entries()
    }

    fn lease(&self) -> Lease {
        let covered = self.covered.load(Ordering::Acquire).checked_sub(1);
        let covered = covered.map(Duration::from_nanos);
        Lease::since_then(covered)
    }

    fn server_now(&self, now: Duration) -> Option<Timestamp> {
        let ahead = self.ahead.load(Ordering::Acquire);
        let known = (ahead != NEVER).then(|| ahead.saturating_add(micros(now)));
        known.and_then(Timestamp::from_micros)
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(at: Duration) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

fn stamp(at: Duration) -> u64 {
    u64::try_from(at.as_nanos())
        .unwrap_or(u64::MAX - 1)
        .saturating_add(1)
}
