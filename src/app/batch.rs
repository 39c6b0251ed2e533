//! Answers a batch of questions about tokens, all at one instant and one revision. Cached facts are
//! used if the lease covers them. All other facts come from one store lookup. If one question
//! cannot be decided, only that question gets an error (R13).

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    App, Error, Introspection, Question,
    cached::{CacheEnd, Cached, NotCached, Pair},
    freshness::Cover,
    lookup::BatchRead,
};
use crate::domain::{
    caller::{Actor, Call},
    lease::Worth,
    revision::Revision,
    secret::{self, Digest},
    verdict::Facts,
};

/// A batch introspection request.
pub struct Batch {
    /// The questions. The `min_revision` of a single question is ignored.
    pub questions: Vec<Question>,
    /// Revision that every answer must reflect.
    pub min_revision: Option<Revision>,
}

/// The answer to one question of a batch, or the error because of which it cannot be decided.
/// Several questions can share one error.
type Judged = Result<Introspection, Arc<Error>>;

/// The answers, in the order of the questions.
#[derive(Debug)]
pub struct Answers {
    /// One answer or error per question.
    pub answers: Vec<Judged>,
    /// Revision that every answer reflects. `None` if nothing had to be looked up and the change
    /// log has not been polled yet.
    pub revision: Option<Revision>,
}

/// Facts by digest. The facts are `None` for a digest that the store does not know, and an error
/// where the lookup failed.
type Known = HashMap<Digest, Result<Option<Arc<Facts>>, Arc<Error>>>;

/// The result of reading the cache for some digests: the facts that may be used, the digests that
/// must be looked up in the store, and how fresh the cache was.
struct Recalled<'a> {
    asked: &'a [Pair<'a>],
    known: Known,
    missing: Vec<Digest>,
    end: CacheEnd,
}

impl App {
    /// Returns verdicts on presented tokens, all at one instant. A question that cannot be decided,
    /// or that exceeds this caller's rate of unrecognized tokens, has an error instead.
    ///
    /// # Errors
    /// [`Error::RevisionUnknown`] if the required revision is unknown.
    pub async fn batch_introspect(&self, call: &Call, batch: &Batch) -> Result<Answers, Error> {
        let questions = &batch.questions;
        let presented = questions
            .iter()
            .map(|asked| secret::recognize(&asked.token));
        let digests: Vec<Option<Digest>> = presented.collect();
        let (mut answers, mut revision) = self.judge_all(batch, &digests).await?;
        if let Some(failures) = self.record_first_uses(call, &digests, &answers).await {
            // Evaluates all questions again, so that all answers share one instant and one revision
            // after the recorded uses.
            (answers, revision) = self.judge_all(batch, &digests).await?;
            refuse_unused(&digests, &mut answers, &failures);
        }
        for (digest, answer) in digests.iter().zip(&answers) {
            if let Ok(judged) = answer {
                self.note_superseded(call, *digest, judged);
            }
        }
        Ok(self.conclude_all(&call.caller.actor, answers, revision))
    }

    /// Returns verdicts as [`Self::batch_introspect`] does, or `None` if the cache cannot answer
    /// every question. `began` must not be later than this call.
    pub fn batch_introspect_cached(
        &self,
        actor: &Actor,
        batch: &Batch,
        began: Duration,
    ) -> Option<Answers> {
        let read = self.begin_cache_read(began);
        let cached = batch.questions.iter().map(|asked| {
            let digest = secret::recognize(&asked.token);
            digest.map(|digest| read.get((digest, &asked.stack_api_key)))
        });
        let cached: Vec<Option<Cached>> = cached.collect();
        let at = self.clock.read();
        let end = read.end(batch.min_revision, at.monotonic);
        let (mut answers, mut hits) = (Vec::with_capacity(cached.len()), 0);
        let point = (end.view.applied, at.now);
        for (question, cached) in batch.questions.iter().zip(cached) {
            hits += u64::from(cached.is_some());
            let facts = match cached {
                Some(cached) => end.accept(cached).ok()?,
                None => None,
            };
            let judged = self.judge(question, facts.as_ref(), point);
            if judged.needs_store() {
                return None;
            }
            answers.push(Ok(judged));
        }
        if self.clock.fault().is_some() {
            return None;
        }
        self.count_hits(end.cover, hits);
        Some(self.conclude_all(actor, answers, end.view.applied))
    }

    fn conclude_all(&self, actor: &Actor, mut answers: Vec<Judged>, revision: Revision) -> Answers {
        for answer in &mut answers {
            if let Ok(judged) = answer
                && let Err(error) = self.conclude(actor, judged)
            {
                *answer = Err(Arc::new(error));
            }
        }
        // Before the first poll of the change log, the revision is unknown.
        let revision = (revision.position != i64::MIN).then_some(revision);
        Answers { answers, revision }
    }

    /// Evaluates all questions at one instant. Returns the answers and the revision that they
    /// reflect.
    async fn judge_all(
        &self,
        batch: &Batch,
        digests: &[Option<Digest>],
    ) -> Result<(Vec<Judged>, Revision), Error> {
        let keys = batch
            .questions
            .iter()
            .map(|asked| asked.stack_api_key.as_str());
        let asked = digests.iter().zip(keys);
        let asked: Vec<_> = asked
            .filter_map(|(digest, key)| Some(((*digest)?, key)))
            .collect();
        let (known, revision) = self.known_of_all(&asked, batch.min_revision).await?;
        // The clock is read after the lookup, because a token must not have expired when the answer
        // is given. It is read only once, so that all answers share one instant.
        let now = self.instant().map_err(Arc::new);
        let judged = batch
            .questions
            .iter()
            .zip(digests)
            .map(|(question, digest)| -> Judged {
                let now = now.clone()?;
                let found = digest.and_then(|digest| known.get(&digest));
                let facts = found.map_or(Ok(None), |found| found.as_ref().map(Option::as_ref));
                let facts = facts.map_err(Arc::clone)?;
                Ok(self.judge(question, facts, (revision, now)))
            });
        Ok((judged.collect(), revision))
    }

    /// Records the first use of every secret that would be answered as active for the first time.
    /// Returns the failures by digest, or `None` if there was no such secret.
    async fn record_first_uses(
        &self,
        call: &Call,
        digests: &[Option<Digest>],
        answers: &[Judged],
    ) -> Option<HashMap<Digest, Arc<Error>>> {
        let judged = digests.iter().zip(answers);
        let unused = judged
            .filter_map(|(digest, answer)| Some(((*digest)?, answer.as_ref().ok()?.unused()?)));
        let unused: HashMap<Digest, &Facts> = unused.collect();
        let mut failures = HashMap::new();
        for (digest, facts) in &unused {
            if let Err(missed) = self.record_first_use(call, *digest, facts).await {
                failures.insert(*digest, Arc::new(missed.into_error(false)));
            }
        }
        (!unused.is_empty()).then_some(failures)
    }

    /// Returns facts about all digests that are fresh enough to use for answers, and the revision
    /// that all of them reflect.
    async fn known_of_all(
        &self,
        asked: &[Pair<'_>],
        min: Option<Revision>,
    ) -> Result<(Known, Revision), Error> {
        let recalled = self.recall(asked, min);
        let hits = recalled.known.len();
        self.count_hits(recalled.end.cover, hits as u64);
        if recalled.missing.is_empty() {
            return Ok((recalled.known, recalled.end.view.applied));
        }
        self.metrics
            .cache_misses
            .inc_by(recalled.missing.len() as u64);
        let read = match self.read_all(&recalled.missing, &recalled, min).await {
            Ok(read) => read,
            Err(error) => return self.without_lookup(recalled, error),
        };
        let timely = self.worth(read.evidence).await == Worth::Answer;
        if hits == 0 && timely {
            return Ok(with_read(Known::new(), &recalled.missing, read));
        }
        if timely && self.still_holds(&recalled, &read) {
            let applied = recalled.end.view.applied;
            let (known, seen) = with_read(recalled.known, &recalled.missing, read);
            // Both positions belong to the same change log, so all facts reflect at least the lower
            // one.
            let position = applied.position.min(seen.position);
            return Ok((known, Revision { position, ..seen }));
        }
        // The lookup was too slow or read another database, so its result cannot be combined with
        // the cached facts. Everything is looked up in one query instead.
        let missing = recalled.missing.iter();
        let wanted: Vec<Digest> = recalled.known.keys().chain(missing).copied().collect();
        let error = match self.read_all(&wanted, &recalled, min).await {
            Ok(read) if self.worth(read.evidence).await == Worth::Answer => {
                return Ok(with_read(Known::new(), &wanted, read));
            }
            Ok(_) => Error::NotFresh,
            Err(error) => error,
        };
        self.without_lookup(recalled, error)
    }

    /// Builds the result after a failed lookup. Digests with cached facts keep them if they may
    /// still be used. All other digests get the error.
    fn without_lookup(
        &self,
        recalled: Recalled<'_>,
        error: Error,
    ) -> Result<(Known, Revision), Error> {
        if matches!(error, Error::RevisionUnknown) {
            return Err(error);
        }
        let error = Arc::new(error);
        let holds = self.is_covered(&recalled) && self.freshness.still_holds(&recalled.end.view);
        let Recalled {
            mut known,
            missing,
            end,
            ..
        } = recalled;
        if !holds {
            for facts in known.values_mut() {
                *facts = Err(error.clone());
            }
        }
        known.extend(
            missing
                .into_iter()
                .map(|digest| (digest, Err(error.clone()))),
        );
        Ok((known, end.view.applied))
    }

    /// Splits the digests into those whose cached facts may be used and those that must be looked
    /// up. Cached facts may be used only if they answer every question about their digest.
    fn recall<'a>(&self, asked: &'a [Pair<'a>], min: Option<Revision>) -> Recalled<'a> {
        let read = self.begin_cache_read(self.clock.monotonic());
        let cached: Vec<_> = asked.iter().map(|pair| read.get(*pair)).collect();
        let end = read.end(min, self.clock.monotonic());
        let mut known = Known::with_capacity(asked.len());
        let mut missing = Vec::new();
        for ((digest, _), cached) in asked.iter().zip(cached) {
            if missing.contains(digest) {
                continue;
            }
            match end.accept(cached) {
                // Another question of the batch presented the same secret with the right stack key
                // and found its facts. Those facts must not be overwritten.
                Ok(None) if known.contains_key(digest) => {}
                Ok(facts) => {
                    known.insert(*digest, Ok(facts));
                }
                Err(NotCached) => {
                    known.remove(digest);
                    missing.push(*digest);
                }
            }
        }
        Recalled {
            asked,
            known,
            missing,
            end,
        }
    }

    async fn read_all(
        &self,
        digests: &[Digest],
        recalled: &Recalled<'_>,
        min: Option<Revision>,
    ) -> Result<BatchRead, Error> {
        let started = (self.clock.monotonic(), self.cache.generation());
        let read = self.flights.look_up_many(&self.ground, digests).await;
        let mut read =
            read.map_err(|missed| missed.into_error(recalled.end.cover == Cover::None))?;
        let seen = (read.applied, &read.snapshot, read.evidence);
        read.applied = self.reflected(seen, min).await?;
        for pair in recalled.asked {
            let facts = read.facts.get(&pair.0).map(AsRef::as_ref);
            self.note_mismatch(*pair, facts, started);
        }
        Ok(read)
    }

    /// Returns whether the cached facts may be combined with this lookup in one response: their
    /// lease still covers them, and both come from the same database.
    fn still_holds(&self, recalled: &Recalled<'_>, read: &BatchRead) -> bool {
        self.is_covered(recalled) && read.evidence.tenure() == recalled.end.view.trusted()
    }

    /// Returns whether the cached facts are still as fresh or as stale as when they were read.
    fn is_covered(&self, recalled: &Recalled<'_>) -> bool {
        let now = self.clock.monotonic();
        self.freshness.cover(&recalled.end.view, now) == recalled.end.cover
    }
}

/// Replaces by an error every answer that would be the first use of a secret if that use could not
/// be recorded.
fn refuse_unused(
    digests: &[Option<Digest>],
    answers: &mut [Judged],
    failures: &HashMap<Digest, Arc<Error>>,
) {
    for (digest, answer) in digests.iter().zip(answers) {
        if answer
            .as_ref()
            .is_ok_and(|judged| judged.unused().is_some())
        {
            let failure = digest.and_then(|digest| failures.get(&digest).cloned());
            *answer = Err(failure.unwrap_or_else(|| Arc::new(Error::NotFresh)));
        }
    }
}

fn with_read(mut known: Known, asked: &[Digest], read: BatchRead) -> (Known, Revision) {
    let BatchRead {
        mut facts, applied, ..
    } = read;
    known.extend(
        asked
            .iter()
            .map(|digest| (*digest, Ok(facts.remove(digest)))),
    );
    (known, applied)
}
