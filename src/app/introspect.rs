//! The verdict on a presented token: digest, facts from memory or else from the store, then
//! the pure judgement at one instant. A doubt about freshness is never answered (R12, R13).

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    App, Error,
    flights::{Missed, Reading},
    freshness::{Cover, View},
    uses::presented,
};
use crate::{
    domain::{
        caller::Call,
        lease::{Evidence, Worth},
        revision::{Revision, Snapshot},
        secret::{self, Digest},
        timestamp::Timestamp,
        verdict::{self, ActionQuestion, Facts, Reason, Verdict},
    },
    metrics::ReasonLabel,
};

/// What a service asks.
pub struct Question {
    /// The secret as it was presented; wiped when the question is done.
    pub token: Zeroizing<String>,
    /// The stack key presented with it, whatever it looks like.
    pub stack_api_key: String,
    /// The actions at hand.
    pub actions: Vec<ActionQuestion>,
    /// A point in the history that the answer must reflect.
    pub min_revision: Option<Revision>,
}

/// The answer, with what it was judged on.
#[derive(Debug)]
pub struct Introspection {
    /// The judgement.
    pub verdict: Verdict,
    /// What is known of the token; absent where it was not recognised, so that nothing of
    /// it can slip into the answer.
    pub known: Option<Known>,
    /// Whether an action was asked about.
    pub asked: bool,
}

/// What stands behind a precise answer.
#[derive(Debug)]
pub struct Known {
    /// The facts.
    pub facts: Arc<Facts>,
    /// All changes up to here are in them.
    pub revision: Revision,
    /// The instant of the judgement.
    pub evaluated_at: Timestamp,
    /// For how long the caller may reuse the answer.
    pub max_age: Duration,
}

/// Facts that may be answered, if there are any, and the point that they reflect.
type Fresh = (Option<Arc<Facts>>, Revision);

impl Introspection {
    fn facts(&self) -> Option<&Facts> {
        self.known.as_ref().map(|known| known.facts.as_ref())
    }

    /// The facts of a secret that is about to be answered as active for the first time.
    pub(super) fn unused(&self) -> Option<&Facts> {
        let active = matches!(self.verdict, Verdict::Active(_));
        self.facts().filter(|facts| active && !facts.token.used)
    }
}

/// The highest point that a reading may reflect: what was asked for, where that is more than what
/// was applied here when it began.
fn reflected(
    applied: Revision,
    snapshot: &Snapshot,
    min: Option<Revision>,
) -> Result<Revision, Error> {
    match min {
        Some(asked) if !snapshot.reflects(asked) => Err(Error::RevisionUnknown),
        Some(asked) if asked.epoch == applied.epoch && asked.position > applied.position => {
            Ok(asked)
        }
        _ => Ok(applied),
    }
}

impl App {
    /// Judges a presented token.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided (R13), or where this caller presents too many
    /// unrecognised tokens.
    pub async fn introspect(
        &self,
        call: &Call,
        question: &Question,
    ) -> Result<Introspection, Error> {
        let digest = secret::recognise(&question.token);
        let found = match digest {
            Some(digest) => self.facts(digest, question.min_revision).await?,
            None => (None, self.view().applied),
        };
        let mut judged = self.judge_now(question, found)?;
        if let (Some(digest), Some(facts)) = (digest, judged.unused()) {
            // In a box, as all that is rare: the way of a hit is to stay small.
            judged = Box::pin(self.judge_first_use(call, question, (digest, facts))).await?;
        }
        self.conclude(call, digest, &judged);
        if judged.verdict == Verdict::NotRecognised {
            self.unrecognised.admit(&call.caller.actor)?;
        }
        Ok(judged)
    }

    /// Once in the life of a secret: its use is on record first, and only then it is answered,
    /// from what the store says after that.
    async fn judge_first_use(
        &self,
        call: &Call,
        question: &Question,
        (digest, facts): (Digest, &Facts),
    ) -> Result<Introspection, Error> {
        let recorded = self.record_first_use(call, digest, facts).await;
        recorded.map_err(|missed| missed.into_error(false))?;
        let found = self.facts_anew(digest, question.min_revision).await?;
        let judged = self.judge_now(question, found)?;
        match judged.unused() {
            Some(_) => Err(Error::NotFresh),
            None => Ok(judged),
        }
    }

    /// Read after the look-up: expiry is compared at the time of the answer.
    fn judge_now(
        &self,
        question: &Question,
        (facts, revision): Fresh,
    ) -> Result<Introspection, Error> {
        let now = self.instant()?;
        Ok(self.judge(question, facts.as_ref(), (revision, now)))
    }

    /// What there is to say at this instant; of a secret not recognised, nothing is known.
    pub(super) fn judge(
        &self,
        question: &Question,
        facts: Option<&Arc<Facts>>,
        (revision, now): (Revision, Timestamp),
    ) -> Introspection {
        let of = facts.map(AsRef::as_ref);
        let verdict = verdict::evaluate(of, &question.stack_api_key, &question.actions, now);
        let facts = facts.filter(|_| verdict != Verdict::NotRecognised);
        Introspection {
            known: facts.map(|facts| self.known(facts.clone(), revision, now)),
            asked: !question.actions.is_empty(),
            verdict,
        }
    }

    /// What an answer leaves behind: it is counted, an active one is noted as a use, and a
    /// superseded secret is told of.
    pub(super) fn conclude(&self, call: &Call, digest: Option<Digest>, judged: &Introspection) {
        self.count(&judged.verdict);
        if let (Verdict::Active(_), Some(known)) = (&judged.verdict, &judged.known) {
            let token = known.facts.token.uid;
            self.uses
                .note(token, &call.caller.actor, known.evaluated_at);
        }
        let superseded = judged.verdict == Verdict::Inactive(Reason::Superseded);
        if let (true, Some(digest), Some(facts)) = (superseded, digest, judged.facts()) {
            self.refusals
                .note_superseded(call, presented(digest, facts));
        }
    }

    /// What vouches for memory now.
    pub(super) fn view(&self) -> View {
        self.freshness.view(self.clock.monotonic())
    }

    /// What is known of a digest, fresh enough to be answered now.
    async fn facts(&self, digest: Digest, min: Option<Revision>) -> Result<Fresh, Error> {
        // Before the look into memory, and the clock after it: see there.
        let view = self.view();
        let remembered = self.cache.get(&digest);
        let now = self.clock.monotonic();
        let cover = self.freshness.cover(&view, now);
        if cover != Cover::None && view.reflects(min) && self.freshness.still_holds(&view) {
            if let Some(facts) = remembered {
                self.count_hit(cover);
                return Ok((Some(facts), view.applied));
            }
            if cover == Cover::Fresh && self.cache.is_unknown(&digest, now) {
                self.metrics.cache_hits.inc();
                return Ok((None, view.applied));
            }
        }
        self.metrics.cache_misses.inc();
        let lapsed = cover == Cover::None;
        let read = Box::pin(self.read_through(digest, min.is_none() && !lapsed)).await;
        let read = read.map_err(|missed| missed.into_error(lapsed))?;
        Box::pin(self.fresh(read, min)).await
    }

    /// What was read, if it reflects the revision asked for. Otherwise that is of another
    /// history, or not there yet: also on a database that was the primary when it was last heard
    /// of, and is not any more.
    async fn fresh(&self, read: Reading, min: Option<Revision>) -> Result<Fresh, Error> {
        let seen = (read.applied, read.snapshot.as_ref(), read.evidence);
        let revision = self.reflected(seen, min).await?;
        Ok((read.facts, revision))
    }

    /// The highest point that a reading is known to reflect. Where it saw the end of a
    /// transaction of that id, the same database must have that change too: it may be a former
    /// primary, which had given the id to another transaction.
    pub(super) async fn reflected(
        &self,
        (applied, snapshot, reading): (Revision, &Snapshot, Evidence),
        min: Option<Revision>,
    ) -> Result<Revision, Error> {
        let revision = reflected(applied, snapshot, min)?;
        if revision != applied && self.store.is_shared() {
            self.require_change(revision, reading).await?;
        }
        Ok(revision)
    }

    async fn require_change(&self, asked: Revision, reading: Evidence) -> Result<(), Error> {
        let started = self.clock.monotonic();
        let finding = self.store.find_change(asked.position);
        let Ok(recorded) = timeout(self.freshness.bound(), finding).await else {
            return Err(Error::NotFresh);
        };
        let recorded = recorded.map_err(|error| Error::of_reading(&Arc::new(error)))?;
        let evidence = self
            .freshness
            .evidence_of_look_up(&recorded.origin, started);
        if evidence.is_none_or(|evidence| evidence.tenure() != reading.tenure()) {
            return Err(Error::NotFresh);
        }
        if !recorded.found {
            return Err(Error::RevisionUnknown);
        }
        match self.worth(reading).await {
            Worth::Answer => Ok(()),
            _ => Err(Error::NotFresh),
        }
    }

    /// The same from the store alone, by a reading that begins now.
    pub(super) async fn facts_anew(
        &self,
        digest: Digest,
        min: Option<Revision>,
    ) -> Result<Fresh, Error> {
        let read = self.read_through(digest, false).await;
        let read = read.map_err(|missed| missed.into_error(false))?;
        self.fresh(read, min).await
    }

    /// Reads the store; a reading shared with others may turn out too old, one of our own not.
    async fn read_through(&self, digest: Digest, shared: bool) -> Result<Reading, Missed> {
        let read = self.flights.look_up(&self.ground, digest, shared).await?;
        match self.worth(read.evidence).await {
            Worth::Answer => return Ok(read),
            Worth::Unproven { .. } => return Err(Missed::Unproven),
            Worth::TooOld | Worth::Elsewhere => {}
        }
        let read = self.flights.look_up(&self.ground, digest, false).await?;
        match self.worth(read.evidence).await {
            Worth::Answer => Ok(read),
            _ => Err(Missed::TooSlow),
        }
    }

    /// What a reading is worth. Where it is fresh and only the proof is missing that the
    /// database is still the primary, the next heartbeat is waited for: on a machine without a
    /// processor to spare it comes late, and says just as much.
    pub(super) async fn worth(&self, reading: Evidence) -> Worth {
        let mut proofs = self.freshness.proofs();
        loop {
            proofs.mark_unchanged();
            let worth = self.freshness.judge(reading, self.clock.monotonic());
            let Worth::Unproven { left } = worth else {
                return worth;
            };
            if !self.safeguards.patience || timeout(left, proofs.changed()).await.is_err() {
                return worth;
            }
        }
    }

    fn known(&self, facts: Arc<Facts>, revision: Revision, now: Timestamp) -> Known {
        let ends = [facts.token.expires_at, facts.token.ends_at];
        let ends = ends.into_iter().flatten().filter(|at| *at > now).min();
        let left = ends.map_or(Duration::MAX, |at| at.since(now));
        let max_age = self.verdict_max_age.min(left);
        Known {
            facts,
            revision,
            evaluated_at: now,
            max_age,
        }
    }

    pub(super) fn count_hit(&self, cover: Cover) {
        self.metrics.cache_hits.inc();
        if cover == Cover::Stale {
            self.metrics.stale_answers.inc();
        }
    }

    fn count(&self, verdict: &Verdict) {
        let reason = verdict.reason().map_or("OK", Reason::name);
        self.metrics
            .verdicts
            .get_or_create(&ReasonLabel { reason })
            .inc();
        if let Verdict::Active(results) = verdict {
            let denials = results
                .iter()
                .filter_map(|result| result.denial.as_ref().err());
            let unknown = denials.filter(|denial| denial.reason == Reason::ActionUnknown);
            self.metrics.unknown_actions.inc_by(unknown.count() as u64);
        }
    }
}
