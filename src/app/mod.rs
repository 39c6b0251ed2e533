//! The use cases: one method per RPC. Knows nothing of gRPC, so that any transport can
//! stand in front of it.

mod audit;
mod batch;
mod clocks;
mod error;
mod feed;
mod flights;
mod freshness;
mod housekeeping;
mod hub;
mod incidents;
mod introspect;
mod read_only;
mod refusals;
mod stacks;
mod throttle;
mod tokens;
mod usage;
mod uses;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::{
    config::Keeping,
    domain::{
        audit::Action, caller::Call, clock::Clock, entropy::Entropy, refusal::Refusal,
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
    refusals::RefusalWriter,
    throttle::Rate,
    tokens::{Issued, Rotated},
    usage::writer::UsageWriter,
    watch::{Points, Told, Watch},
};
pub use crate::store::{
    AuditCursor, AuditFilter, AuditPage, Issue, ListQuery, MemberChange, MembersChanged, Order,
    Register, RevokeAll, RevokedAll, Rotate, StackCursor, StackPage, StackStep, StackWithMembers,
    TokenCursor, TokenPage,
};
pub use stacktoken_core::facts_cache::Subject;

use self::{
    flights::{Flights, Ground},
    freshness::{Cover, Freshness},
    hub::Hub,
    read_only::ReadOnly,
    refusals::RefusalLog,
    throttle::Throttle,
    usage::Uses,
    uses::FirstUses,
};

/// What an operator can set about the use cases.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// For how long a caller may reuse a verdict.
    pub verdict_max_age: Duration,
    /// How many changes one caller may ask for.
    pub changes: Rate,
    /// How many unrecognised tokens one caller may present.
    pub unrecognised: Rate,
    /// How old answers may be.
    pub bounds: Bounds,
    /// How many digests are remembered.
    pub cache_entries: usize,
    /// How many pairs of token and service are remembered until they are on record; none:
    /// when tokens are used is not gathered.
    pub usage_pairs: usize,
    /// How many readings of the store there may be at once.
    pub readings: usize,
    /// How many pieces of news wait for the slowest of those who watch.
    pub watch_queue: usize,
    /// What keeps answers true.
    pub safeguards: Safeguards,
    /// What is kept for how long.
    pub keeping: Keeping,
}

/// What keeps answers true. A test takes one away to see that another fails without it; no
/// setting does.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is taken away on its own"
)]
pub struct Safeguards {
    /// What is remembered is answered only under a lease (§9.2).
    pub lease: bool,
    /// The lease counts from the last heartbeat too, not only from the last reading.
    pub heartbeat: bool,
    /// A reading that took longer than the bound is not answered.
    pub reading_age: bool,
    /// What is remembered is answered only if it reflects the revision that was asked for.
    pub reflection: bool,
    /// A late fill does not bring back what was thrown out (§9.4).
    pub generations: bool,
    /// A flight is shared only by those for whom it began late enough (§9.4).
    pub flights: bool,
    /// A change of our own is kept out of memory until its outcome is known, and applied here
    /// before it is answered (§9.5).
    pub own_changes: bool,
    /// A change that is committed after one with a higher number is not lost (§9.3).
    pub commit_order: bool,
    /// A look-up counts only if it is of the database that committed the heartbeat.
    pub look_up_origins: bool,
    /// A database is another one after a crash, a promotion or a restart.
    pub incarnation: bool,
    /// Rows that were copied into another database cluster are not trusted there.
    pub system: bool,
    /// A reading waits for the heartbeat that proves it.
    pub patience: bool,
    /// A change is made only in the database that committed the last heartbeat.
    pub change_origins: bool,
    /// A change is decided only by a clock that agrees with this process's.
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

/// The service, less its transport.
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
    flights: Flights,
    first_uses: FirstUses,
    uses: Arc<Uses>,
    freshness: Arc<Freshness>,
    ground: Ground,
    nudged: Notify,
    /// Another database is trusted than before.
    left: Notify,
    hub: Hub,
    read_only: ReadOnly,
    safeguards: Safeguards,
    keeping: Keeping,
}

/// What a call was about, for the audit of its refusal.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The stack, as the caller named it.
    pub stack_key: Option<String>,
    /// The token, as the caller named it.
    pub token_uid: Option<String>,
}

impl App {
    /// The use cases over a store, and the writer of refusals, which somebody must run.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        metrics: Arc<Metrics>,
        tuning: &Tuning,
    ) -> (Self, RefusalWriter) {
        let (refusals, writer) = refusals::channel(store.clone(), metrics.clone());
        let Tuning {
            bounds, safeguards, ..
        } = *tuning;
        let cache = Arc::new(Cache::new(tuning.cache_entries, safeguards.generations));
        if safeguards.own_changes {
            store.bar_from(cache.clone());
        }
        let store_of = store.clone();
        let ground = Ground {
            store: store.clone(),
            cache: cache.clone(),
            clock: clock.clone(),
            freshness: Arc::new(Freshness::new(bounds, &store_of, safeguards)),
        };
        let uses = Arc::new(Uses::new(tuning.usage_pairs, metrics.clone()));
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
            first_uses: FirstUses::default(),
            uses,
            flights: Flights::new(tuning.readings, bounds.freshness, safeguards.flights),
            freshness: ground.freshness.clone(),
            ground,
            nudged: Notify::new(),
            left: Notify::new(),
            hub: Hub::new(tuning.watch_queue),
            read_only: ReadOnly::default(),
            safeguards,
            keeping: tuning.keeping,
        };
        (app, writer)
    }

    /// The clock that calls are timed by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The store, for probes of its health.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the service counts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether questions can be answered: from memory, or by reading the store under the same
    /// bound.
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

    /// Who writes down when tokens were used, which somebody must run.
    #[must_use]
    pub fn usage_writer(&self) -> UsageWriter {
        UsageWriter {
            uses: self.uses.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// That this caller has not asked for too many changes of late.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn admit_change(&self, call: &Call) -> Result<(), Refusal> {
        self.changes.admit(&call.caller.actor)
    }

    /// Forgets callers that have been quiet; to be called now and then.
    pub fn forget_quiet_callers(&self) {
        self.changes.forget_quiet();
        self.unrecognised.forget_quiet();
    }

    /// Has a refusal of an authenticated caller recorded, after the fact (R14).
    pub fn note_refusal(&self, call: &Call, action: Action, about: About, refusal: &Refusal) {
        let first = RefusedCall {
            at: self.clock.now(),
            stack_key: about.stack_key,
            token_uid: about.token_uid,
            request_id: call.request_id.clone(),
        };
        self.refusals
            .note(&call.caller.actor, (action, refusal.reason()), first);
    }

    /// Notes a change of our own: the store has evicted what it is about by now (R12). A preview
    /// has no place in the history.
    fn note_change<T>(&self, call: &Call, done: &Result<(T, Revision), store::Error>) {
        if let (Ok((_, revision)), false) = (done, call.previews()) {
            self.note_own(*revision);
        }
    }

    /// A change of our own is made and applied. Where the database does not send a hint by
    /// itself, it is read at once for those who watch.
    fn note_own(&self, revision: Revision) {
        self.freshness.note_own(revision.position);
        if !self.store.is_shared() {
            self.nudged.notify_one();
        }
    }

    /// What the store answered, with a refusal noted on the way.
    fn settle<T>(
        &self,
        call: &Call,
        (action, about): (Action, About),
        done: Result<T, store::Error>,
    ) -> Result<T, Error> {
        if let Err(store::Error::Refused(refusal)) = &done {
            self.note_refusal(call, action, about, refusal);
        }
        Ok(done?)
    }

    /// The same for a change. A preview has no place in the history, so none is told.
    fn settle_change<T>(
        &self,
        call: &Call,
        place: (Action, About),
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

/// A line for each change, so that what a restore undid can be found again.
fn log_change(action: Action, about: &About, revision: Revision) {
    let About {
        stack_key,
        token_uid,
    } = about;
    let (stack, token_uid) = (stack_key.as_deref(), token_uid.as_deref());
    tracing::info!(change = action.name(), stack, token_uid, %revision, "changed");
}
