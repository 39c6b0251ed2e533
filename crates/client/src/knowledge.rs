//! What this process knows and for how long it may be answered: the rule of a replica's own
//! cache (§9), with the ping that was answered in place of the reading of the history. Pure
//! but for the clock; knows nothing of connections.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    answer::{Answer, Kept},
    question::Question,
};
use stacktoken_core::{
    clock::Clock,
    facts_cache::{Cache, Generation},
    id::{StackUid, TokenUid},
    lease::Lease,
    revision::Revision,
    secret::{self, Digest},
    timestamp::Timestamp,
    verdict::{self, Verdict},
};

/// Nothing is known yet of the server's clock.
const NEVER: i64 = i64::MIN;

/// How long what is known may be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The freshness bound (R12).
    pub freshness: Duration,
    /// After this the server is asked again, so that it learns of the use.
    pub reuse_for: Duration,
}

pub(super) struct Knowledge {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    cache: Cache<Kept>,
    /// All changes acknowledged before this instant of our clock were told and applied:
    /// nanoseconds plus one; 0 where nothing is known.
    covered: AtomicU64,
    /// The server's clock less our monotonic one in microseconds, never too low.
    ahead: AtomicI64,
    /// Whether the server judges actions by the catalogue that is compiled in here.
    same_catalogue: AtomicBool,
    stream: Mutex<Stream>,
}

/// The stream as it stands.
#[derive(Default)]
struct Stream {
    /// How many there have been.
    number: u64,
    /// Whether a ping of this one was answered.
    live: bool,
    /// Everything up to here was told, on this stream or an earlier one.
    told: Option<Told>,
}

/// The points of the last event.
#[derive(Clone)]
pub(super) struct Told {
    /// Where another stream may go on.
    pub revision: String,
    /// What an answer must reflect to be remembered.
    pub min_revision: String,
}

impl Told {
    /// The points after an event that came after these. What must be reflected never goes
    /// back, not even with a new stream: a replica that lags behind what was told before could
    /// answer what was forgotten then.
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

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Token(TokenUid),
    Stack(StackUid),
    /// Something that this client does not know.
    Unknown,
}

/// A question under way whose answer may be remembered, as things were when it was sent.
pub(super) struct Asking {
    stream: u64,
    generation: Generation,
    /// What the answer must reflect.
    pub min_revision: String,
}

impl Knowledge {
    pub fn new(clock: Arc<dyn Clock>, bounds: Bounds, entries: usize) -> Self {
        Self {
            clock,
            bounds,
            cache: Cache::new(entries, true),
            covered: AtomicU64::new(0),
            ahead: AtomicI64::new(NEVER),
            same_catalogue: AtomicBool::new(false),
            stream: Mutex::default(),
        }
    }

    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The answer from memory, where that is as good as the server's.
    pub fn recall(&self, question: &Question<'_>) -> Option<Answer> {
        let min = question.revision().map(Revision::parse);
        let min = min.transpose().ok()?;
        if !question.is_plain() {
            return None;
        }
        let asked = !question.actions.is_empty();
        let Some(digest) = secret::recognise(question.token) else {
            // What the server would say after the same look at it.
            return Some(Answer::new(Verdict::NotRecognised, None, asked, true));
        };
        // Both before the look into memory: what came with an eviction would vouch for what
        // that threw out.
        let lease = self.lease();
        let reflects = min.is_none_or(|min| self.was_told(min));
        let kept = self.cache.get(&digest)?;
        let now = self.clock.monotonic();
        let may = lease.covers(now, self.bounds.freshness)
            && now.saturating_sub(kept.asked_at) <= self.bounds.reuse_for
            && (!asked || self.same_catalogue.load(Ordering::Acquire))
            && reflects;
        if !may {
            return None;
        }
        let at = self.server_now(now)?;
        let key = question.stack_api_key;
        let verdict = verdict::evaluate(Some(&kept.facts), key, question.actions, at);
        // Only time can have ended what was active, and our idea of the server's time runs
        // ahead by up to a round trip: the end is for the server to say.
        (!matches!(verdict, Verdict::Inactive(_)))
            .then(|| Answer::new(verdict, Some(kept), asked, true))
    }

    /// What has to be known before a question is sent, for its answer to be remembered.
    pub fn asking(&self) -> Option<Asking> {
        let stream = self.stream();
        let told = stream.told.as_ref().filter(|_| stream.live)?;
        Some(Asking {
            stream: stream.number,
            // Under the lock under which changes are applied: an eviction that is not in the
            // generation is not in the revision either.
            generation: self.cache.generation(),
            min_revision: told.min_revision.clone(),
        })
    }

    /// Remembers an answer to such a question, unless the stream is another by now, or has
    /// told since that something changed.
    pub fn keep(&self, asking: &Asking, digest: Digest, kept: &Arc<Kept>) -> bool {
        let stream = self.stream();
        stream.live
            && stream.number == asking.stream
            && self.cache.fill(digest, kept, asking.generation)
    }

    /// The server's clock said this while a question was out that was sent at `sent`.
    pub fn note_server_time(&self, sent: Duration, evaluated_at: Timestamp) {
        let ahead = evaluated_at.as_micros().saturating_sub(micros(sent));
        self.ahead.fetch_max(ahead, Ordering::AcqRel);
    }

    /// Whether everything up to a revision was told.
    pub fn was_told(&self, min: Revision) -> bool {
        let stream = self.stream();
        let told = stream.told.as_ref();
        let told = told.and_then(|told| Revision::parse(&told.revision).ok());
        told.is_some_and(|told| told.epoch == min.epoch && min.position <= told.position)
    }

    /// A stream is to be opened. Answers from where: `None`, and nothing is known any more.
    pub fn resume_from(&self) -> Option<String> {
        let resume = self
            .stream()
            .told
            .as_ref()
            .map(|told| told.revision.clone());
        let resume = resume.filter(|revision| !revision.is_empty());
        if resume.is_none() {
            self.forget();
        }
        resume
    }

    /// A stream was opened, to a server with the same catalogue or another.
    pub fn begin(&self, same_catalogue: bool) {
        let mut stream = self.stream();
        stream.number += 1;
        stream.live = false;
        self.same_catalogue.store(same_catalogue, Ordering::Release);
    }

    /// A change was told.
    pub fn change(&self, subject: Subject, told: Told) {
        let mut stream = self.stream();
        stream.told = Some(told.after(stream.told.as_ref()));
        match subject {
            Subject::Token(uid) => self.cache.evict_token(uid),
            Subject::Stack(uid) => self.cache.evict_stack(uid),
            Subject::Unknown => self.cache.clear(),
        }
    }

    /// A ping that was sent at `sent` was answered.
    pub fn pong(&self, sent: Duration, staleness: Duration, told: Told) {
        let mut stream = self.stream();
        stream.told = Some(told.after(stream.told.as_ref()));
        stream.live = true;
        if let Some(covered) = sent.checked_sub(staleness) {
            self.covered.fetch_max(stamp(covered), Ordering::AcqRel);
        }
    }

    /// The stream ended. What is remembered may be answered until the lease runs out, since
    /// what was told so far does not become less true.
    pub fn end(&self) {
        self.stream().live = false;
    }

    /// Nothing that was told counts any more.
    pub fn forget(&self) {
        let mut stream = self.stream();
        stream.live = false;
        stream.told = None;
        self.covered.store(0, Ordering::Release);
        self.cache.clear();
    }

    /// How old the point is that the lease is measured from.
    pub fn lease_age(&self) -> Option<Duration> {
        self.lease().age(self.clock.monotonic())
    }

    /// How many secrets are remembered.
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
