//! Decides the verdict on a presented token: hashes the secret, gets the facts about the token from
//! the cache or the store, and evaluates them at one instant. If the facts may not be fresh, the
//! call fails (R12, R13).

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    App, Error,
    first_use::presented,
    freshness::{Cover, View},
    lookup::{LookupError, Reading, UNKNOWN_FOR},
    question::{Included, Question},
};
use crate::domain::{
    caller::{Actor, Call},
    catalogue::Catalogue,
    lease::{Evidence, Worth},
    revision::{Revision, Snapshot},
    secret::{self, Digest},
    timestamp::Timestamp,
    verdict::{self, Facts, Reason, Verdict},
};
use stacktoken_core::facts_cache::Generation;

/// An answer, with the facts that it is based on.
#[derive(Debug)]
pub struct Introspection {
    /// The verdict.
    pub verdict: Verdict,
    /// What is known about the token. `None` if the token was not recognized, so that no facts can
    /// leak into the answer.
    pub known: Option<Known>,
    /// Whether the request asked about any action.
    pub asked: bool,
    /// The facts that the request asked for.
    pub include: Included,
}

/// What an answer about a recognized token is based on.
#[derive(Debug)]
pub struct Known {
    /// The facts about the token.
    pub facts: Arc<Facts>,
    /// Revision that the facts reflect: they include every change up to it.
    pub revision: Revision,
    /// Time at which the verdict was evaluated.
    pub evaluated_at: Timestamp,
    /// How long the caller may reuse the answer.
    pub max_age: Duration,
}

/// Facts that are fresh enough to use for an answer, and the revision that they reflect. The facts
/// are `None` if the token does not exist.
type Fresh = (Option<Arc<Facts>>, Revision);

impl Introspection {
    fn facts(&self) -> Option<&Facts> {
        self.known.as_ref().map(|known| known.facts.as_ref())
    }

    /// Returns whether the verdict is that the secret is superseded.
    fn is_superseded(&self) -> bool {
        self.verdict == Verdict::Inactive(Reason::Superseded)
    }

    /// Returns whether this answer requires a write to the store: of a first use before the answer,
    /// or of an audit row after it.
    pub(super) fn needs_store(&self) -> bool {
        self.unused().is_some() || self.is_superseded()
    }

    /// Returns the facts if this answer would be the first one to call the secret active.
    pub(super) fn unused(&self) -> Option<&Facts> {
        let active = matches!(self.verdict, Verdict::Active(_));
        self.facts().filter(|facts| active && !facts.token.used)
    }
}

/// Returns the highest revision that a lookup is known to reflect. `applied` is the revision that
/// this replica had applied when the lookup started. If the required revision is higher, and the
/// snapshot of the lookup includes it, returns the required revision. Otherwise returns `applied`.
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
    /// Returns the catalogue in effect.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Returns the verdict on a presented token.
    ///
    /// # Errors
    /// [`Error`] if the verdict cannot be decided (R13), or if this caller presents too many
    /// unrecognized tokens.
    pub async fn introspect(
        &self,
        call: &Call,
        question: &Question,
    ) -> Result<Introspection, Error> {
        let digest = secret::recognize(&question.token);
        let began = self.clock.monotonic();
        let mut judged = match self.judge_cached(digest, question, began) {
            Some((cached, _, cover)) => {
                self.count_hit(cover);
                cached
            }
            // Boxed, like every rare path, to keep the future of a cache hit small.
            None => Box::pin(self.judge_looked_up(digest, question)).await?,
        };
        if let (Some(digest), Some(facts)) = (digest, judged.unused()) {
            judged = Box::pin(self.judge_first_use(call, question, (digest, facts))).await?;
        }
        self.note_superseded(call, digest, &judged);
        self.conclude(&call.caller.actor, &judged)?;
        Ok(judged)
    }

    /// Evaluates a question with facts from a store lookup.
    async fn judge_looked_up(
        &self,
        digest: Option<Digest>,
        question: &Question,
    ) -> Result<Introspection, Error> {
        let found = match digest {
            Some(digest) => self.look_up(digest, question).await?,
            None => (None, self.view().applied),
        };
        self.judge_now(question, found)
    }

    /// Records the first use of a secret, and then answers from a store lookup that starts after
    /// the recording. Runs once per secret.
    async fn judge_first_use(
        &self,
        call: &Call,
        question: &Question,
        (digest, facts): (Digest, &Facts),
    ) -> Result<Introspection, Error> {
        let recorded = self.record_first_use(call, digest, facts).await;
        recorded.map_err(|missed| missed.into_error(false))?;
        let found = self
            .look_up_facts_unshared(digest, question.min_revision)
            .await?;
        let judged = self.judge_now(question, found)?;
        match judged.unused() {
            Some(_) => Err(Error::NotFresh),
            None => Ok(judged),
        }
    }

    /// Evaluates the facts at the current time. This must come after the lookup, because a token
    /// must not have expired when the answer is given.
    fn judge_now(
        &self,
        question: &Question,
        (facts, revision): Fresh,
    ) -> Result<Introspection, Error> {
        let now = self.instant()?;
        Ok(self.judge(question, facts.as_ref(), (revision, now)))
    }

    /// Evaluates the facts at `now`. The answer contains no facts if the secret is not recognized.
    pub(super) fn judge(
        &self,
        question: &Question,
        facts: Option<&Arc<Facts>>,
        (revision, now): (Revision, Timestamp),
    ) -> Introspection {
        let of = facts.map(AsRef::as_ref);
        let (key, actions) = (&question.stack_api_key, &question.actions);
        let verdict = verdict::evaluate(&self.catalogue, of, key, actions, now);
        let facts = facts.filter(|_| verdict != Verdict::NotRecognized);
        Introspection {
            known: facts.map(|facts| self.known(facts.clone(), revision, now)),
            asked: !question.actions.is_empty(),
            include: question.include,
            verdict,
        }
    }

    /// Counts an answer in the metrics, and records a use of the token if the token is active.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`](crate::domain::refusal::Refusal::RateLimited) if this caller
    /// presents too many unrecognized tokens.
    pub(super) fn conclude(&self, actor: &Actor, judged: &Introspection) -> Result<(), Error> {
        self.count(&judged.verdict);
        match (&judged.verdict, &judged.known) {
            (Verdict::Active(_), Some(known)) => {
                let token = known.facts.token.uid;
                self.uses.note(token, actor, known.evaluated_at);
            }
            (Verdict::NotRecognized, _) => self.unrecognized.admit(actor)?,
            _ => {}
        }
        Ok(())
    }

    /// Queues an audit row if the verdict is that the secret is superseded.
    pub(super) fn note_superseded(
        &self,
        call: &Call,
        digest: Option<Digest>,
        judged: &Introspection,
    ) {
        if let (true, Some(digest), Some(facts)) = (judged.is_superseded(), digest, judged.facts())
        {
            self.refusals
                .note_superseded(call, presented(digest, facts));
        }
    }

    /// Returns the current lease and applied revision, which decide whether a cached entry may be
    /// used.
    pub(super) fn view(&self) -> View {
        self.freshness.view(self.clock.monotonic())
    }

    /// Looks up the facts of a digest in the store, fresh enough to use for an answer.
    async fn look_up(&self, digest: Digest, question: &Question) -> Result<Fresh, Error> {
        let min = question.min_revision;
        let asked = (digest, question.stack_api_key.as_str());
        let now = self.clock.monotonic();
        self.metrics.cache_misses.inc();
        let lapsed = self.freshness.cover(&self.freshness.view(now), now) == Cover::None;
        let generation = self.cache.generation();
        let read = Box::pin(self.read_through(digest, min.is_none() && !lapsed)).await;
        let read = read.map_err(|missed| missed.into_error(lapsed))?;
        let found = Box::pin(self.fresh(read, min)).await?;
        self.note_mismatch(asked, found.0.as_deref(), (now, generation));
        Ok(found)
    }

    /// Caches the pair if the stack key does not belong to the stack of the secret. The answer is
    /// the same as for an unknown secret, so it must also be cached for the same time. Otherwise
    /// the response time would reveal that the secret exists. The entry cannot become wrong,
    /// because neither the stack of a token nor the key of a stack ever changes.
    pub(super) fn note_mismatch(
        &self,
        (digest, key): (Digest, &str),
        facts: Option<&Facts>,
        (started, generation): (Duration, Generation),
    ) {
        if facts.is_some_and(|facts| facts.stack.key != key) {
            let until = started + self.freshness.bound().min(UNKNOWN_FOR);
            let pair = digest.with_stack_key(key);
            self.cache.note_unknown(pair, until, generation);
        }
    }

    /// Returns the facts that a lookup found. Fails if they do not reflect the revision that the
    /// caller requires, which then belongs to another change log or has not been reached yet. This
    /// check also detects a database that has stopped being the primary since its last heartbeat.
    async fn fresh(&self, read: Reading, min: Option<Revision>) -> Result<Fresh, Error> {
        let seen = (read.applied, read.snapshot.as_ref(), read.evidence);
        let revision = self.reflected(seen, min).await?;
        Ok((read.facts, revision))
    }

    /// Returns the highest revision that a lookup is known to reflect. It is not enough that the
    /// snapshot of the lookup includes the required transaction id, because a former primary may
    /// have assigned this id to another transaction. The same database must also contain the row of
    /// the required change.
    pub(super) async fn reflected(
        &self,
        (applied, snapshot, reading): (Revision, &Snapshot, Evidence),
        min: Option<Revision>,
    ) -> Result<Revision, Error> {
        let revision = reflected(applied, snapshot, min)?;
        if revision != applied && self.store.has_other_writers() {
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

    /// Returns the facts of a digest from a store lookup that starts now and is not shared.
    pub(super) async fn look_up_facts_unshared(
        &self,
        digest: Digest,
        min: Option<Revision>,
    ) -> Result<Fresh, Error> {
        let read = self.read_through(digest, false).await;
        let read = read.map_err(|missed| missed.into_error(false))?;
        self.fresh(read, min).await
    }

    /// Looks a digest up in the store. If the result is too old or comes from another database,
    /// repeats the lookup once, unshared.
    async fn read_through(&self, digest: Digest, shared: bool) -> Result<Reading, LookupError> {
        let read = self.flights.look_up(&self.ground, digest, shared).await?;
        match self.worth(read.evidence).await {
            Worth::Answer => return Ok(read),
            Worth::Unproven { .. } => return Err(LookupError::Unproven),
            Worth::TooOld | Worth::Elsewhere => {}
        }
        let read = self.flights.look_up(&self.ground, digest, false).await?;
        match self.worth(read.evidence).await {
            Worth::Answer => Ok(read),
            _ => Err(LookupError::TooSlow),
        }
    }

    /// Decides whether the result of a lookup may be used for an answer. If the result is fresh but
    /// its database is not proven to be the primary, waits for the next heartbeat. On a machine
    /// that is short of CPU, a heartbeat can be late.
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
        let ends = [facts.expires_at(), facts.token.ends_at];
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

    fn count(&self, verdict: &Verdict) {
        self.metrics
            .count_verdict(verdict.reason().map(Reason::name));
        if let Verdict::Active(results) = verdict {
            let denials = results
                .iter()
                .filter_map(|result| result.denial.as_ref().err());
            let unknown = denials.filter(|denial| denial.reason == Reason::ActionUnknown);
            self.metrics.unknown_actions.inc_by(unknown.count() as u64);
        }
    }
}
