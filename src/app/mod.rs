//! The use cases: one method per RPC. Knows nothing of gRPC, so that any transport can
//! stand in front of it.

mod audit;
mod error;
mod introspect;
mod refusals;
mod stacks;
mod throttle;
mod tokens;

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{audit::Action, caller::Call, clock::Clock, entropy::Entropy, refusal::Refusal},
    metrics::Metrics,
    store::{self, RefusedCall, Store},
};

pub use self::{
    error::Error,
    introspect::{Introspection, Question},
    refusals::RefusalWriter,
    throttle::Rate,
    tokens::Issued,
};
pub use crate::store::{
    AuditCursor, AuditFilter, AuditPage, Issue, ListQuery, MemberChange, MembersChanged, Order,
    Register, StackCursor, StackPage, StackStep, StackWithMembers, TokenCursor, TokenPage,
};

use self::{refusals::RefusalLog, throttle::Throttle};

/// What an operator can set about the use cases.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// For how long a caller may reuse a verdict.
    pub verdict_max_age: Duration,
    /// How many changes one caller may ask for.
    pub changes: Rate,
    /// How many unrecognised tokens one caller may present.
    pub unrecognised: Rate,
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
        let app = Self {
            store,
            clock,
            entropy,
            metrics,
            refusals,
            changes: Throttle::new(tuning.changes),
            unrecognised: Throttle::new(tuning.unrecognised),
            verdict_max_age: tuning.verdict_max_age,
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
            at: call.now,
            stack_key: about.stack_key,
            token_uid: about.token_uid,
            request_id: call.request_id.clone(),
        };
        self.refusals
            .note(&call.caller.actor, (action, refusal.reason()), first);
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
}
