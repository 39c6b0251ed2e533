//! The use cases: one method of [`App`] per RPC. They do not depend on gRPC, so another transport
//! could call them too.

mod audit;
mod batch;
mod cached;
mod change_broadcast;
mod change_poller;
mod clocks;
mod coalesce;
mod end_session;
mod error;
mod exchange;
mod explain;
mod first_use;
mod freshness;
mod guard;
mod housekeeping;
mod incidents;
mod introspect;
mod last_used;
mod lookup;
mod question;
mod read_only;
mod refusals;
mod safeguards;
mod stacks;
mod throttle;
mod tokens;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::{
    config::RetentionSettings,
    domain::{
        audit::AuditAction,
        caller::Call,
        catalogue::Catalogue,
        clock::Clock,
        entropy::Entropy,
        federation::{FederationIssuers, NoWorkloads, VerifyWorkload, session::SessionLimits},
        refusal::Refusal,
        revision::Revision,
        token::Token,
    },
    metrics::Metrics,
    store::{self, Hidden, MaybeChanged, RefusedCall, Store},
};
use stacktoken_core::facts_cache::Cache;

pub use self::{
    batch::{Answers, Batch},
    error::Error,
    exchange::{Exchange, Exchanged},
    explain::{ExplainExchange, Explanation},
    freshness::Bounds,
    incidents::LeakReport,
    introspect::Introspection,
    last_used::writer::UsageWriter,
    question::{Included, Question},
    refusals::RefusalWriter,
    safeguards::Safeguards,
    throttle::Rate,
    tokens::{Issued, Rotated},
    watch::{EventRevisions, Watch, WatchEvent},
};
pub use crate::store::{
    AuditActor, AuditCursor, AuditFilter, AuditPage, EndSessions, Issue, ListQuery, MemberChange,
    MemberCursor, MemberPage, MembersChanged, Order, OwnStackPage, Register, Registered, RevokeAll,
    RevokedAll, Rotate, StackCursor, StackPage, StackStep, TOKENS_LISTED, TokenCursor, TokenFilter,
    TokenPage,
};
pub use stacktoken_core::facts_cache::Subject;

use self::{
    change_broadcast::ChangeBroadcast,
    coalesce::Coalescer,
    end_session::Strangers,
    first_use::FirstUseRecorder,
    freshness::{Cover, Freshness},
    last_used::LastUsedTracker,
    lookup::{LookupDeps, SingleFlight},
    read_only::ReadOnly,
    refusals::RefusalLog,
    throttle::Throttle,
};

/// Settings of the use cases.
#[derive(Clone, Copy, Debug)]
pub struct UseCaseSettings {
    /// How long a caller may reuse a verdict, at most.
    pub verdict_max_age: Duration,
    /// Rate limit on the changes that one caller makes.
    pub changes: Rate,
    /// Rate limit on the unrecognized tokens that one caller presents.
    pub unrecognized: Rate,
    /// How old answers may be.
    pub bounds: Bounds,
    /// Maximum number of cached digests.
    pub cache_entries: usize,
    /// Maximum number of (token, service) pairs whose last use is held in memory until it is
    /// written to the store. 0 turns the recording of token usage off.
    pub usage_pairs: usize,
    /// Maximum number of concurrent store lookups.
    pub readings: usize,
    /// Number of change batches queued for the slowest watcher.
    pub watch_queue: usize,
    /// Safeguards that keep answers correct.
    pub safeguards: Safeguards,
    /// Retention periods, and the interval of housekeeping.
    pub keeping: RetentionSettings,
    /// Limits on the number of live sessions of federated tokens.
    pub sessions: SessionLimits,
}

/// The use cases and the state that they share, without a transport.
pub struct App {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    catalogue: Arc<Catalogue>,
    refusals: RefusalLog,
    changes: Throttle,
    unrecognized: Throttle,
    verdict_max_age: Duration,
    cache: Arc<Cache>,
    flights: SingleFlight,
    first_uses: FirstUseRecorder,
    uses: Arc<LastUsedTracker>,
    freshness: Arc<Freshness>,
    ground: LookupDeps,
    nudged: Notify,
    /// Signals to the listener that another database is trusted now.
    left: Notify,
    hub: ChangeBroadcast,
    read_only: ReadOnly,
    safeguards: Safeguards,
    keeping: RetentionSettings,
    workloads: Workloads,
    sessions: SessionLimits,
    explained: Throttle,
    strangers: Strangers,
}

/// The issuers of workloads' JWTs, and the verifier of these JWTs.
#[derive(Clone)]
pub struct Workloads {
    /// The issuers that the operator has configured.
    pub issuers: Arc<FederationIssuers>,
    /// Verifies the JWTs of these issuers.
    pub verifier: Arc<dyn VerifyWorkload>,
}

/// The stack and token that a call is about, for the audit row if the call is refused.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Key of the stack, as the caller sent it.
    pub stack_key: Option<String>,
    /// Id of the token, as the caller sent it.
    pub token_uid: Option<String>,
    /// Idempotency key of the request, if the caller sent one.
    pub request_id: Option<String>,
}

impl App {
    /// Creates the use cases on top of a store, and the refusal writer, which the caller must run.
    /// Verdicts are evaluated with `catalogue`.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        metrics: Arc<Metrics>,
        tuning: &UseCaseSettings,
        catalogue: Arc<Catalogue>,
    ) -> (Self, RefusalWriter) {
        let (refusals, writer) = refusals::channel(store.clone(), metrics.clone());
        let UseCaseSettings {
            bounds, safeguards, ..
        } = *tuning;
        let cache = Arc::new(Cache::new(tuning.cache_entries, safeguards.generations));
        if safeguards.own_changes {
            store.bar_from(cache.clone());
        }
        let ground = LookupDeps {
            misses: Coalescer::new(store.clone(), bounds.freshness),
            store: store.clone(),
            cache: cache.clone(),
            clock: clock.clone(),
            freshness: Arc::new(Freshness::new(bounds, &store, safeguards)),
        };
        let uses = Arc::new(LastUsedTracker::new(tuning.usage_pairs, metrics.clone()));
        let app = Self {
            store,
            clock,
            entropy,
            metrics,
            catalogue,
            refusals,
            changes: Throttle::new(tuning.changes),
            unrecognized: Throttle::new(tuning.unrecognized),
            verdict_max_age: tuning.verdict_max_age,
            cache,
            first_uses: FirstUseRecorder::default(),
            uses,
            flights: SingleFlight::new(tuning.readings, bounds.freshness, safeguards.flights),
            freshness: ground.freshness.clone(),
            ground,
            nudged: Notify::new(),
            left: Notify::new(),
            hub: ChangeBroadcast::new(tuning.watch_queue),
            read_only: ReadOnly::default(),
            safeguards,
            keeping: tuning.keeping,
            workloads: Workloads {
                issuers: Arc::default(),
                verifier: Arc::new(NoWorkloads),
            },
            sessions: tuning.sessions,
            explained: Throttle::new(exchange::EXPLAINED),
            strangers: Strangers::new(tuning.changes, tuning.readings),
        };
        (app, writer)
    }

    /// Sets the issuers whose workloads can exchange their JWTs. Without this call, no workload
    /// can.
    #[must_use]
    pub fn trusting(self, workloads: Workloads) -> Self {
        Self { workloads, ..self }
    }

    /// Returns the clock that calls use.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Returns the store, for health probes.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns whether this replica can answer verdicts within the freshness bound, from the cache
    /// or from the store. Also updates the metrics of the cache size and of a lost SQLite file.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.metrics
            .cache_entries
            .set(i64::try_from(self.cache.entries()).unwrap_or(i64::MAX));
        let lost = self.freshness.is_file_lost();
        self.metrics.store_file_lost.set(lost.into());
        let now = self.clock.monotonic();
        self.freshness.cover(&self.freshness.view(now), now) != Cover::None
    }

    /// Creates the writer of token usage, which the caller must run.
    #[must_use]
    pub fn usage_writer(&self) -> UsageWriter {
        UsageWriter {
            uses: self.uses.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Checks the caller's rate limit on changes.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn admit_change(&self, call: &Call) -> Result<(), Refusal> {
        let sharer = call.caller.sharer();
        if call.caller.stranger_in.is_some() {
            return self.strangers.admit(&sharer);
        }
        self.changes.admit(&sharer)
    }

    /// Removes idle callers from the rate limiters. Call it periodically.
    pub fn evict_idle_callers(&self) {
        self.changes.evict_idle();
        self.unrecognized.evict_idle();
        self.explained.evict_idle();
        self.strangers.evict_idle();
    }

    /// Queues an audit row about the refusal of an authenticated caller's request (R14).
    pub fn note_refusal(&self, call: &Call, action: AuditAction, about: About, refusal: &Refusal) {
        let first = RefusedCall {
            at: self.clock.now(),
            stack_key: about.stack_key,
            token_uid: about.token_uid,
            request_id: about.request_id,
            call_id: call.request_id.clone(),
        };
        let hidden = refusal.obstacle().map(|obstacle| Hidden {
            obstacle,
            stack_key: first.stack_key.clone(),
        });
        let refused = (action, refusal.reason(), hidden);
        self.refusals.note(&call.caller, refused, first);
    }

    /// Notes the revision of a change that this replica made. The store has already evicted the
    /// subject of the change from the cache (R12). A preview changes nothing and has no revision.
    fn note_change<T>(&self, call: &Call, done: &Result<(T, Revision), store::Error>) {
        if let (Ok((_, revision)), false) = (done, call.previews()) {
            self.note_own(*revision);
        }
    }

    /// Notes that a change by this replica is committed and applied to the cache. A store that is
    /// not shared sends no notifications, so this also triggers a poll of the change log for the
    /// watchers.
    fn note_own(&self, revision: Revision) {
        self.freshness.note_own(revision.position);
        if !self.store.has_other_writers() {
            self.nudged.notify_one();
        }
    }

    /// Notes, converts and logs the result of a change that may have found nothing to change. If
    /// it found nothing, the revision is not noted, because this replica may not have applied it
    /// yet.
    fn settle_maybe_changed(
        &self,
        call: &Call,
        place: (AuditAction, About),
        done: Result<(MaybeChanged, Revision), store::Error>,
    ) -> Result<(Token, Option<Revision>), Error> {
        match done {
            Ok((unchanged, revision)) if !unchanged.changed => {
                Ok((unchanged.token, (!call.previews()).then_some(revision)))
            }
            done => {
                self.note_change(call, &done);
                let (after, revision) = self.settle_change(call, place, done)?;
                Ok((after.token, revision))
            }
        }
    }

    /// Converts the result of a store call, and queues an audit row if the store refused the call.
    fn settle<T>(
        &self,
        call: &Call,
        (action, about): (AuditAction, About),
        done: Result<T, store::Error>,
    ) -> Result<T, Error> {
        if let Err(store::Error::Refused(refusal)) = &done {
            self.note_refusal(call, action, about, refusal);
        }
        Ok(done?)
    }

    /// Converts the result of a change as `settle` does, and logs the change. Returns the revision
    /// of the change; `None` for a preview.
    fn settle_change<T>(
        &self,
        call: &Call,
        place: (AuditAction, About),
        done: Result<(T, Revision), store::Error>,
    ) -> Result<(T, Option<Revision>), Error> {
        let (action, about) = (place.0, place.1.clone());
        let (after, revision) = self.settle(call, place, done)?;
        if call.previews() {
            return Ok((after, None));
        }
        log_change(action, &about, revision);
        Ok((after, Some(revision)))
    }
}

/// Logs a change. If the database is later restored from a backup, the log shows which changes were
/// lost.
fn log_change(action: AuditAction, about: &About, revision: Revision) {
    let About {
        stack_key,
        token_uid,
        ..
    } = about;
    let (stack, token_uid) = (stack_key.as_deref(), token_uid.as_deref());
    tracing::info!(change = action.name(), stack, token_uid, %revision, "changed");
}
