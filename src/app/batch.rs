//! Verdicts on many presented tokens at one instant and on one revision. What is remembered
//! is answered under the lease; everything else is one reading of the store. If one cannot be
//! decided, none is (R13).

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use super::{
    App, Error, Introspection, Question,
    flights::ManyRead,
    freshness::{Cover, View},
};
use crate::domain::{
    caller::Call,
    lease::Worth,
    revision::Revision,
    secret::{self, Digest},
    verdict::Facts,
};

/// What a service asks at once.
pub struct Batch {
    /// The questions. What they say of a revision is not looked at.
    pub questions: Vec<Question>,
    /// A point in the history that every answer must reflect.
    pub min_revision: Option<Revision>,
}

/// The answers, in the order of the questions.
#[derive(Debug)]
pub struct Answers {
    /// One to a question.
    pub answers: Vec<Introspection>,
    /// All changes up to here are in every one of them. `None` where there was nothing to
    /// look up and no history is known here yet.
    pub revision: Option<Revision>,
}

/// Facts by digest; `None` for one that nobody knows.
type Known = HashMap<Digest, Option<Arc<Facts>>>;

/// What is remembered of some digests, and what vouches for it.
struct Recalled {
    known: Known,
    missing: Vec<Digest>,
    /// By this, and so well, it could be answered.
    view: View,
    cover: Cover,
}

impl App {
    /// Judges presented tokens, all at one instant.
    ///
    /// # Errors
    /// [`Error`] where one of them cannot be decided (R13), or where this caller presents too
    /// many unrecognised tokens.
    pub async fn batch_introspect(&self, call: &Call, batch: &Batch) -> Result<Answers, Error> {
        let questions = &batch.questions;
        let presented = questions
            .iter()
            .map(|asked| secret::recognise(&asked.token));
        let digests: Vec<Option<Digest>> = presented.collect();
        let (mut answers, mut revision) = self.judge_all(batch, &digests).await?;
        if self.record_first_uses(call, &digests, &answers).await? {
            // All of it again: one instant and one revision, after what was recorded.
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
        // Before the history is read for the first time there is no such point.
        let revision = (revision.position != i64::MIN).then_some(revision);
        Ok(Answers { answers, revision })
    }

    /// What there is to say of all of them at this instant, and the point that it reflects.
    async fn judge_all(
        &self,
        batch: &Batch,
        digests: &[Option<Digest>],
    ) -> Result<(Vec<Introspection>, Revision), Error> {
        let (known, revision) = self.known_of_all(digests, batch.min_revision).await?;
        // Read after the look-up, and once: expiry is compared at the time of the answer.
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

    /// Has the first use of every secret recorded that would be answered as active for the
    /// first time, and says whether there was one.
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

    /// What is known of the digests, fresh enough to be answered now, and the point that all
    /// of it reflects.
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
            // One history, so the earlier of the two points is reflected in both.
            let position = applied.position.min(seen.position);
            return Ok((known, Revision { position, ..seen }));
        }
        // The reading took so long, or saw so much else, that what was remembered cannot be
        // answered beside it: one of everything.
        let wanted: Vec<Digest> = recalled.known.keys().copied().chain(missing).collect();
        let read = self.read_all(&wanted, &recalled, min).await?;
        if self.worth(read.evidence).await != Worth::Answer {
            return Err(Error::NotFresh);
        }
        Ok(with_read(Known::new(), &wanted, read))
    }

    /// What is remembered and may be answered.
    fn recall(&self, digests: &[Option<Digest>], min: Option<Revision>) -> Recalled {
        // Before the look into memory, and the clock is read again after it, since a process
        // may have been stopped in between.
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
    ) -> Result<ManyRead, Error> {
        let read = self.flights.look_up_many(&self.ground, digests).await;
        let mut read = read.map_err(|missed| missed.into_error(recalled.cover == Cover::None))?;
        let seen = (read.applied, &read.snapshot, read.evidence);
        read.applied = self.reflected(seen, min).await?;
        Ok(read)
    }

    /// Whether what was remembered may still be answered once the reading is done, and beside
    /// it: by the lease that it was taken under, and of the same history.
    fn still_holds(&self, recalled: &Recalled, read: &ManyRead) -> bool {
        let now = self.clock.monotonic();
        self.freshness.cover(&recalled.view, now) == recalled.cover
            && read.evidence.tenure() == recalled.view.trusted()
    }
}

fn with_read(mut known: Known, asked: &[Digest], read: ManyRead) -> (Known, Revision) {
    let ManyRead {
        mut facts, applied, ..
    } = read;
    known.extend(asked.iter().map(|digest| (*digest, facts.remove(digest))));
    (known, applied)
}
