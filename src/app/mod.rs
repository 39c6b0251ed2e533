//! The use cases: one method per RPC. Independent of gRPC, so that another transport can call
//! them.

mod audit;
mod batch;
mod change_broadcast;
mod change_poller;
mod clocks;
mod error;
mod first_use;
mod freshness;
mod housekeeping;
mod incidents;
mod introspect;
mod last_used;
mod lookup;
mod read_only;
mod refusals;
mod stacks;
mod throttle;
mod tokens;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::{
    config::Keeping,
    domain::{
        audit::AuditAction, caller::Call, clock::Clock, entropy::Entropy, refusal::Refusal,
        revision::Revision,
    },
    metrics::Metrics,
    store::{self, RefusedCall, Store},
};
use stacktoken_core::facts_cache::Cache;

pub use self::{
    batch::{Answers, Batch},
    error::Error,
    freshness::Bounds,
    incidents::LeakReport,
    introspect::{Introspection, Question},
    last_used::writer::UsageWriter,
    refusals::RefusalWriter,
    throttle::Rate,
    tokens::{Issued, Rotated},
    watch::{Points, Told, Watch},
};
pub use crate::store::{
    AuditCursor, AuditFilter, AuditPage, Issue, ListQuery, MemberChange, MembersChanged, Order,
    Register, RevokeAll, RevokedAll, Rotate, StackCursor, StackPage, StackStep, StackWithMembers,
    TokenCursor, TokenPage,
};
pub use stacktoken_core::facts_cache::Subject;

use self::{
    change_broadcast::ChangeBroadcast,
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
    /// Longest time a caller may reuse a verdict.
    pub verdict_max_age: Duration,
    /// Change rate limit of one caller.
    pub changes: Rate,
    /// Rate limit on unrecognised tokens presented by one caller.
    pub unrecognised: Rate,
    /// Maximum age of answers.
    pub bounds: Bounds,
    /// Maximum number of cached digests.
    pub cache_entries: usize,
    /// Maximum number of (token, service) pairs held until their use is written to the store;
    /// 0 disables recording when tokens are used.
    pub usage_pairs: usize,
    /// Maximum number of concurrent store lookups.
    pub readings: usize,
    /// Number of change batches queued for the slowest watcher.
    pub watch_queue: usize,
    /// Safeguards that keep answers correct.
    pub safeguards: Safeguards,
    /// Retention periods.
    pub keeping: Keeping,
}

/// Safeguards that keep answers correct; see docs/architecture.md. No setting disables one: tests
/// do, to show that a wrong answer follows.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is taken away on its own"
)]
pub struct Safeguards {
    /// A cached answer requires a valid lease.
    pub lease: bool,
    /// The lease is measured from the last heartbeat too, not only from the last change-log poll.
    pub heartbeat: bool,
    /// A lookup that took longer than the freshness bound is not answered.
    pub reading_age: bool,
    /// A cached answer must reflect the requested revision.
    pub reflection: bool,
    /// A fill that started before an eviction does not restore the evicted entry.
    pub generations: bool,
    /// A caller joins a single-flight load only if it is recent and nothing was evicted since.
    pub flights: bool,
    /// The subject of a local change is barred from the cache until the outcome is known, and
    /// evicted before the change is acknowledged.
    pub own_changes: bool,
    /// A change that commits after one with a higher number is not skipped.
    pub commit_order: bool,
    /// A lookup counts only if it is from the database that committed the last heartbeat.
    pub look_up_origins: bool,
    /// A crash, promotion or restart gives a database a new origin.
    pub incarnation: bool,
    /// Rows copied into another database cluster are not trusted there.
    pub system: bool,
    /// A lookup waits for the heartbeat that proves its database is the primary.
    pub patience: bool,
    /// A change is made only in the database that committed the last heartbeat.
    pub change_origins: bool,
    /// A change is decided only if the database's clock agrees with this process's clock.
    pub change_clocks: bool,
}

impl Default for Safeguards {
    fn default() -> Self {
        Self {
            lease: true,
            heartbeat: true,
            reading_age: true,
            reflection: true,
            generations: true,
            flights: true,
            own_changes: true,
            commit_order: true,
            look_up_origins: true,
            incarnation: true,
            system: true,
            patience: true,
            change_origins: true,
            change_clocks: true,
        }
    }
}

/// The use cases and their shared state, without a transport.
pub struct App {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
    refusals: RefusalLog,
    changes: Throttle,
    unrecognised: Throttle,
    verdict_max_age: Duration,
    cache: Arc<Cache>,
    flights: SingleFlight,
    first_uses: FirstUseRecorder,
    uses: Arc<LastUsedTracker>,
    freshness: Arc<Freshness>,
    ground: LookupDeps,
    nudged: Notify,
    /// Signals that another database is now trusted.
    left: Notify,
    hub: ChangeBroadcast,
    read_only: ReadOnly,
    safeguards: Safeguards,
    keeping: Keeping,
}

/// Subject of a call, for the audit row of its refusal.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Stack key, as the caller sent it.
    pub stack_key: Option<String>,
    /// Token id, as the caller sent it.
    pub token_uid: Option<String>,
}

impl App {
    /// Creates the use cases over a store, and the refusal writer, which the caller must run.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        metrics: Arc<Metrics>,
        tuning: &UseCaseSettings,
    ) -> (Self, RefusalWriter) {
        let (refusals, writer) = refusals::channel(store.clone(), metrics.clone());
        let UseCaseSettings {
            bounds, safeguards, ..
        } = *tuning;
        let cache = Arc::new(Cache::new(tuning.cache_entries, safeguards.generations));
        if safeguards.own_changes {
            store.bar_from(cache.clone());
        }
        let store_of = store.clone();
        let ground = LookupDeps {
            store: store.clone(),
            cache: cache.clone(),
            clock: clock.clone(),
            freshness: Arc::new(Freshness::new(bounds, &store_of, safeguards)),
        };
        let uses = Arc::new(LastUsedTracker::new(tuning.usage_pairs, metrics.clone()));
        let app = Self {
            store,
            clock,
            entropy,
            metrics,
            refusals,
            changes: Throttle::new(tuning.changes),
            unrecognised: Throttle::new(tuning.unrecognised),
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
        };
        (app, writer)
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

    /// Returns whether verdicts can be answered within the freshness bound, from the cache or from
    /// the store.
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

    /// Checks the caller's change rate limit.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn admit_change(&self, call: &Call) -> Result<(), Refusal> {
        self.changes.admit(&call.caller.actor)
    }

    /// Removes idle callers from the rate limiters. Call it periodically.
    pub fn forget_quiet_callers(&self) {
        self.changes.forget_quiet();
        self.unrecognised.forget_quiet();
    }

    /// Queues the refusal of an authenticated caller for the audit (R14).
    pub fn note_refusal(&self, call: &Call, action: AuditAction, about: About, refusal: &Refusal) {
        let first = RefusedCall {
            at: self.clock.now(),
            stack_key: about.stack_key,
            token_uid: about.token_uid,
            request_id: call.request_id.clone(),
        };
        self.refusals
            .note(&call.caller.actor, (action, refusal.reason()), first);
    }

    /// Notes the revision of a local change. The store has already evicted its subject (R12). A
    /// preview has no revision.
    fn note_change<T>(&self, call: &Call, done: &Result<(T, Revision), store::Error>) {
        if let (Ok((_, revision)), false) = (done, call.previews()) {
            self.note_own(*revision);
        }
    }

    /// Notes that a local change is committed and applied. If the database sends no notifications,
    /// triggers a change-log poll for watchers at once.
    fn note_own(&self, revision: Revision) {
        self.freshness.note_own(revision.position);
        if !self.store.is_shared() {
            self.nudged.notify_one();
        }
    }

    /// Converts the result of a store call, and queues a refusal for the audit.
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

    /// Settles a change like `settle`, and logs it. Returns its revision; `None` for a preview.
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

/// Logs each change, so that changes undone by a database restore can be identified.
fn log_change(action: AuditAction, about: &About, revision: Revision) {
    let About {
        stack_key,
        token_uid,
    } = about;
    let (stack, token_uid) = (stack_key.as_deref(), token_uid.as_deref());
    tracing::info!(change = action.name(), stack, token_uid, %revision, "changed");
}
