//! Answers questions from the cache, for single questions and for batches. Takes the view first,
//! then reads the entries, and then the clock.
//! [`Freshness::view`](super::freshness::Freshness::view) explains this order.

use std::{sync::Arc, time::Duration};

use super::{
    App, Error, Introspection, Question,
    freshness::{Cover, View},
};
use crate::domain::{
    caller::Actor,
    clock::ClockReading,
    revision::Revision,
    secret::{self, Digest},
    verdict::Facts,
};

/// A digest, and the stack key that was presented with its secret.
pub(super) type Pair<'a> = (Digest, &'a str);

/// A read of the cache in progress. The entries that it returns must not be used before
/// [`Self::end`] has been called.
pub(super) struct CacheRead<'a> {
    app: &'a App,
    view: View,
}

/// What the cache has about a presented secret and its stack key.
pub(super) struct Cached {
    facts: Option<Arc<Facts>>,
    /// Whether the presented stack key is the key of the token's stack.
    fits: bool,
    /// When the cached entry that says that this secret is unknown, or belongs to another stack,
    /// expires.
    unknown_until: Option<Duration>,
}

/// A completed read of the cache. It decides which of the entries may be used for an answer.
pub(super) struct CacheEnd {
    pub view: View,
    pub cover: Cover,
    now: Duration,
    usable: bool,
}

/// The error that the cache has nothing that may be used for an answer.
pub(super) struct NotCached;

impl App {
    /// Returns the verdict on a presented token if the cache is enough to answer, and the clock
    /// reading at which it was evaluated. Returns `None` if the store is needed: to look the token
    /// up, to record its first use, or to audit the use of a superseded secret. `began` must not be
    /// later than this call.
    ///
    /// # Errors
    /// [`Error`] if this caller presents too many unrecognized tokens.
    pub fn introspect_cached(
        &self,
        actor: &Actor,
        question: &Question,
        began: Duration,
    ) -> Option<Result<(Introspection, ClockReading), Error>> {
        let digest = secret::recognize(&question.token);
        let (judged, at, cover) = self.judge_cached(digest, question, began)?;
        if judged.needs_store() {
            return None;
        }
        self.count_hit(cover);
        let concluded = self.conclude(actor, &judged);
        Some(concluded.map(|()| (judged, at)))
    }

    /// Evaluates a question with cached facts; `None` if they are not enough, or if the clock
    /// cannot be trusted. A text that is not a secret needs no facts.
    pub(super) fn judge_cached(
        &self,
        digest: Option<Digest>,
        question: &Question,
        began: Duration,
    ) -> Option<(Introspection, ClockReading, Option<Cover>)> {
        let read = self.begin_cache_read(began);
        let key = question.stack_api_key.as_str();
        let cached = digest.map(|digest| read.get((digest, key)));
        let at = self.clock.read();
        let end = read.end(question.min_revision, at.monotonic);
        let facts = match cached {
            Some(cached) => end.accept(cached).ok()?,
            None => None,
        };
        if self.clock.fault().is_some() {
            return None;
        }
        let point = (end.view.applied, at.now);
        let judged = self.judge(question, facts.as_ref(), point);
        Some((judged, at, digest.map(|_| end.cover)))
    }

    /// Begins to read the cache. `now` must not be later than this call.
    pub(super) fn begin_cache_read(&self, now: Duration) -> CacheRead<'_> {
        CacheRead {
            app: self,
            view: self.freshness.view(now),
        }
    }

    /// Counts a verdict as a cache hit. `cover` is `None` if the verdict needed no cache.
    pub(super) fn count_hit(&self, cover: Option<Cover>) {
        if let Some(cover) = cover {
            self.count_hits(cover, 1);
        }
    }

    /// Counts `count` verdicts that are answered from the cache.
    pub(super) fn count_hits(&self, cover: Cover, count: u64) {
        self.metrics.cache_hits.inc_by(count);
        if cover == Cover::Stale {
            self.metrics.stale_answers.inc_by(count);
        }
    }
}

impl CacheRead<'_> {
    /// Returns what the cache has about a pair.
    pub fn get(&self, (digest, key): Pair<'_>) -> Cached {
        let cache = &self.app.cache;
        let facts = cache.get(&digest);
        let fits = facts.as_ref().is_some_and(|facts| facts.stack.key == key);
        let unknown_until = if fits {
            None
        } else {
            let of_pair = || cache.unknown_until(&digest.with_stack_key(key));
            cache.unknown_until(&digest).or_else(of_pair)
        };
        Cached {
            facts,
            fits,
            unknown_until,
        }
    }

    /// Ends the read. `now` must be read after the entries, so that a process that was suspended in
    /// between finds that its lease has expired.
    pub fn end(self, min: Option<Revision>, now: Duration) -> CacheEnd {
        let freshness = &self.app.freshness;
        let cover = freshness.cover(&self.view, now);
        CacheEnd {
            usable: cover != Cover::None
                && self.view.reflects(min)
                && freshness.still_holds(&self.view),
            view: self.view,
            cover,
            now,
        }
    }
}

impl CacheEnd {
    /// Returns the facts that may be used for an answer. They are `None` if the secret is cached as
    /// unknown.
    ///
    /// # Errors
    /// [`NotCached`] if a store lookup is needed.
    pub fn accept(&self, cached: Cached) -> Result<Option<Arc<Facts>>, NotCached> {
        let unknown = || {
            let until = cached.unknown_until;
            self.cover == Cover::Fresh && until.is_some_and(|until| self.now < until)
        };
        if self.usable && (cached.fits || unknown()) {
            Ok(cached.facts)
        } else {
            Err(NotCached)
        }
    }
}
