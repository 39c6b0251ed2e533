//! Verdicts on several tokens, all at one instant and one revision. Cached facts are used as far as
//! the lease covers them. All other facts come from one store lookup. If one verdict cannot be
//! decided, the whole batch fails (R13).

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use super::{
    App, Error, Introspection, Question,
    freshness::{Cover, View},
    lookup::BatchRead,
};
use crate::domain::{
    caller::Call,
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

/// The answers, in the order of the questions.
#[derive(Debug)]
pub struct Answers {
    /// One answer per question.
    pub answers: Vec<Introspection>,
    /// Revision that every answer reflects. `None` if nothing had to be looked up and the change
    /// log has not been polled yet.
    pub revision: Option<Revision>,
}

/// Facts by digest; the value is `None` for a digest that the store does not know.
type Known = HashMap<Digest, Option<Arc<Facts>>>;

/// The cached facts of some digests, the digests that must be looked up, and the view under which
/// the cached facts may be used.
struct Recalled {
    known: Known,
    missing: Vec<Digest>,
    /// The view, taken before the cache was read.
    view: View,
    cover: Cover,
}

impl App {
    /// Returns verdicts on presented tokens, all at one instant.
    ///
    /// # Errors
    /// [`Error`] if one of the verdicts cannot be decided (R13), or if this caller presents too
    /// many unrecognised tokens.
    pub async fn batch_introspect(&self, call: &Call, batch: &Batch) -> Result<Answers, Error> {
        let questions = &batch.questions;
        let presented = questions
            .iter()
            .map(|asked| secret::recognise(&asked.token));
        let digests: Vec<Option<Digest>> = presented.collect();
        let (mut answers, mut revision) = self.judge_all(batch, &digests).await?;
        if self.record_first_uses(call, &digests, &answers).await? {
            // Judges all questions again, so that all answers share one instant and one revision
            // after the recorded uses.
            (answers, revision) = self.judge_all(batch, &digests).await?;
            if answers.iter().any(|answer| answer.unused().is_some()) {
                return Err(Error::NotFresh);
            }
        }
        for (digest, answer) in digests.iter().zip(&answers) {
            self.conclude(call, *digest, answer);
        }
        let unrecognised = answers
            .iter()
            .filter(|answer| answer.known.is_none())
            .count();
        let unrecognised = u32::try_from(unrecognised).unwrap_or(u32::MAX);
        if let Some(count) = NonZeroU32::new(unrecognised) {
            self.unrecognised.admit_many(&call.caller.actor, count)?;
        }
        // Before the first poll of the change log, the revision is unknown.
        let revision = (revision.position != i64::MIN).then_some(revision);
        Ok(Answers { answers, revision })
    }

    /// Evaluates all questions at one instant. Returns the answers and the revision that they
    /// reflect.
    async fn judge_all(
        &self,
        batch: &Batch,
        digests: &[Option<Digest>],
    ) -> Result<(Vec<Introspection>, Revision), Error> {
        let (known, revision) = self.known_of_all(digests, batch.min_revision).await?;
        // The clock is read once, after the lookup, because expiry counts at the time of the
        // answer.
        let now = self.instant()?;
        let judged = batch
            .questions
            .iter()
            .zip(digests)
            .map(|(question, digest)| {
                let facts = digest.and_then(|digest| known.get(&digest)?.as_ref());
                self.judge(question, facts, (revision, now))
            });
        Ok((judged.collect(), revision))
    }

    /// Records the first use of every secret that would be answered as active for the first time.
    /// Returns whether any first use was recorded.
    async fn record_first_uses(
        &self,
        call: &Call,
        digests: &[Option<Digest>],
        answers: &[Introspection],
    ) -> Result<bool, Error> {
        let judged = digests.iter().zip(answers);
        let unused = judged.filter_map(|(digest, answer)| Some(((*digest)?, answer.unused()?)));
        let unused: HashMap<Digest, &Facts> = unused.collect();
        for (digest, facts) in &unused {
            let recorded = self.record_first_use(call, *digest, facts).await;
            recorded.map_err(|missed| missed.into_error(false))?;
        }
        Ok(!unused.is_empty())
    }

    /// Returns the facts of all digests, which are fresh enough to answer from now, and the
    /// revision that all of them reflect.
    async fn known_of_all(
        &self,
        digests: &[Option<Digest>],
        min: Option<Revision>,
    ) -> Result<(Known, Revision), Error> {
        let mut recalled = self.recall(digests, min);
        let hits = recalled.known.len();
        (0..hits).for_each(|_| self.count_hit(recalled.cover));
        if recalled.missing.is_empty() {
            return Ok((recalled.known, recalled.view.applied));
        }
        self.metrics
            .cache_misses
            .inc_by(recalled.missing.len() as u64);
        let read = self.read_all(&recalled.missing, &recalled, min).await?;
        let timely = self.worth(read.evidence).await == Worth::Answer;
        if hits == 0 && timely {
            return Ok(with_read(Known::new(), &recalled.missing, read));
        }
        let missing = std::mem::take(&mut recalled.missing);
        if timely && self.still_holds(&recalled, &read) {
            let applied = recalled.view.applied;
            let (known, seen) = with_read(recalled.known, &missing, read);
            // Both positions are positions in the same change log, so all facts reflect the lower
            // position.
            let position = applied.position.min(seen.position);
            return Ok((known, Revision { position, ..seen }));
        }
        // The lookup was too slow or read another database, so its result cannot be combined with
        // the cached facts. Everything is looked up in one query instead.
        let wanted: Vec<Digest> = recalled.known.keys().copied().chain(missing).collect();
        let read = self.read_all(&wanted, &recalled, min).await?;
        if self.worth(read.evidence).await != Worth::Answer {
            return Err(Error::NotFresh);
        }
        Ok(with_read(Known::new(), &wanted, read))
    }

    /// Splits the digests into those whose cached facts may be used and those that must be looked
    /// up.
    fn recall(&self, digests: &[Option<Digest>], min: Option<Revision>) -> Recalled {
        // The view is taken before the cache is read. The clock is read again after the cache,
        // because the process may have been suspended in between.
        let view = self.view();
        let now = self.clock.monotonic();
        let cover = self.freshness.cover(&view, now);
        let usable = view.reflects(min) && cover != Cover::None;
        let mut known = Known::with_capacity(digests.len());
        let mut missing = Vec::new();
        for digest in digests.iter().flatten() {
            if known.contains_key(digest) || missing.contains(digest) {
                continue;
            }
            let facts = self.cache.get(digest);
            let unknown = || cover == Cover::Fresh && self.cache.is_unknown(digest, now);
            if usable && (facts.is_some() || unknown()) {
                known.insert(*digest, facts);
            } else {
                missing.push(*digest);
            }
        }
        let later = self.freshness.cover(&view, self.clock.monotonic());
        if later != cover || !self.freshness.still_holds(&view) {
            missing.extend(known.drain().map(|(digest, _)| digest));
        }
        Recalled {
            known,
            missing,
            view,
            cover,
        }
    }

    async fn read_all(
        &self,
        digests: &[Digest],
        recalled: &Recalled,
        min: Option<Revision>,
    ) -> Result<BatchRead, Error> {
        let read = self.flights.look_up_many(&self.ground, digests).await;
        let mut read = read.map_err(|missed| missed.into_error(recalled.cover == Cover::None))?;
        let seen = (read.applied, &read.snapshot, read.evidence);
        read.applied = self.reflected(seen, min).await?;
        Ok(read)
    }

    /// Returns whether the cached facts may be combined with this lookup in one response: their
    /// lease still covers them, and both come from the same database.
    fn still_holds(&self, recalled: &Recalled, read: &BatchRead) -> bool {
        let now = self.clock.monotonic();
        self.freshness.cover(&recalled.view, now) == recalled.cover
            && read.evidence.tenure() == recalled.view.trusted()
    }
}

fn with_read(mut known: Known, asked: &[Digest], read: BatchRead) -> (Known, Revision) {
    let BatchRead {
        mut facts, applied, ..
    } = read;
    known.extend(asked.iter().map(|digest| (*digest, facts.remove(digest))));
    (known, applied)
}
