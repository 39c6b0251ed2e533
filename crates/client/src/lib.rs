//! A client for Rust services, which introspects presented tokens. It calls a server, or answers
//! from its own cache if this is permitted. It uses the cache under the same rule as the server,
//! and evaluates tokens with the same code.
//!
//! ```no_run
//! use stacktoken_client::{ActionQuestion, Client, Error, Question};
//!
//! # async fn serve(token: &str, key: &str) -> Result<(), Box<dyn std::error::Error>> {
//! // Once, for the whole process; clones share everything.
//! let client = Client::builder("https://stacktoken.internal:50051")
//!     .ca_pem(std::fs::read("/etc/stacktoken/ca.pem")?)
//!     .bearer_file("/run/secrets/stacktoken.jwt")
//!     .build()?;
//!
//! // For each incoming request.
//! let actions = [ActionQuestion {
//!     name: "entry.update".into(),
//!     branch: Some("main".into()),
//!     ..Default::default()
//! }];
//! match client.introspect(&Question::new(token, key).about(&actions)).await {
//!     Ok(answer) if answer.allowed() => {} // go on
//!     Ok(answer) if answer.active() => {}  // 403, with answer.reason()
//!     Ok(answer) => {}                     // 401, with answer.reason()
//!     Err(Error::Undecided { retry_after, .. }) => {} // 503 with Retry-After
//!     Err(error) => {}                     // 500: this service must be fixed
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it caches
//!
//! The client caches facts about active tokens, never verdicts. A `Watch` stream reports changes.
//! The client sends four pings within the freshness bound (1 s), and each answered ping confirms
//! that every change was reported. The cache is used only while the last confirmation is within the
//! bound. So once the bound has passed since a revocation was acknowledged by any replica, no
//! answer says that the token is active. While the stream is silent or closed, every question goes
//! to the server, which is slower but never wrong. If the server is unreachable too, the client
//! returns an error, which is never a verdict.
//!
//! # What the server does not see
//!
//! The server does not see answers from the cache. If a token is in constant use, the client still
//! asks the server about it once a minute ([`Builder::reuse_for`]), so `last_used_at` lags by at
//! most a minute. The server's metrics count only the questions that reach the server.

/// Includes a page of the manual, so that the example program on it is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/clients/rust.md")]
struct Page;

mod answer;
mod builder;
mod cache;
mod catalogue;
mod clock;
mod convert;
mod credential;
mod error;
mod pb;
mod question;
mod redact;
mod transport;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::watch as channel, task::AbortHandle};

use self::{
    answer::CachedFacts,
    cache::{PendingRequest, VerdictCache},
    transport::{TimedAnswer, Transport},
    watch::Fault,
};
use stacktoken_core::{revision::Revision, secret};

pub use self::{answer::Answer, builder::Builder, error::Error, question::Question};
/// The types that questions and answers use.
pub use stacktoken_core::{
    clock::Clock,
    labels::Labels,
    permissions::{Access, Permissions},
    timestamp::Timestamp,
    verdict::{ActionQuestion, ActionResult, Denial, Missing, Reason, Verdict},
};

/// A client that answers questions about presented tokens. It is cheap to clone. All clones share
/// one cache and one stream, which are dropped together with the last clone.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    cache: Arc<VerdictCache>,
    transport: Arc<Transport>,
    fault: channel::Receiver<Fault>,
    watching: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Client {
    /// Returns a builder for a client of the server at this URL. [`Builder::address`] adds the URLs
    /// of other replicas.
    pub fn builder(address: impl Into<String>) -> Builder {
        Builder::new(address.into())
    }

    fn start(runtime: &Handle, cache: VerdictCache, transport: Transport) -> Self {
        let (cache, transport) = (Arc::new(cache), Arc::new(transport));
        let (fault_sender, fault) = channel::channel(Some("not opened yet".to_owned()));
        // If this task ends, the lease expires, and from then on every question goes to the server.
        let watching = watch::run_watch(cache.clone(), transport.clone(), fault_sender);
        let watching = runtime.spawn(watching).abort_handle();
        Self(Arc::new(Shared {
            cache,
            transport,
            fault,
            watching,
        }))
    }

    /// Answers a question from the cache if the cache may be used, and otherwise calls the server.
    ///
    /// # Errors
    /// Returns an [`Error`] if the question cannot be decided, which is never a verdict (R13).
    pub async fn introspect(&self, question: &Question<'_>) -> Result<Answer, Error> {
        if let Some(answer) = self.cached(question) {
            return Ok(answer);
        }
        let timeout = self.0.transport.timeout;
        let answered = tokio::time::timeout(timeout, self.ask(question)).await;
        answered.unwrap_or_else(|_| Err(Error::late(timeout)))
    }

    /// Returns the answer from the cache, if the cache may be used. This method neither waits nor
    /// calls the server. For a question without actions, it allocates no memory.
    #[must_use]
    pub fn cached(&self, question: &Question<'_>) -> Option<Answer> {
        self.0.cache.recall(question)
    }

    /// Returns the age of the lease: the time since the latest instant before which this client
    /// knows every acknowledged change. Returns `None` if no such instant is known. The cache is
    /// used while this age is within the freshness bound.
    #[must_use]
    pub fn lease_age(&self) -> Option<Duration> {
        self.0.cache.lease_age()
    }

    /// Returns the number of cached secrets.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.0.cache.entries()
    }

    /// Returns why no stream reports changes at the moment; `None` if a stream does.
    #[must_use]
    pub fn watch_fault(&self) -> Option<String> {
        self.0.fault.borrow().clone()
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer, Error> {
        let Shared {
            cache, transport, ..
        } = self.0.as_ref();
        let own = question.revision().unwrap_or_default();
        let pending = cache.pending();
        let pending = pending.filter(|pending| own.is_empty() || self.covers(own, pending));
        let min = pending
            .as_ref()
            .map(|pending| later(own, &pending.min_revision));
        let answered = transport.introspect(question, min.unwrap_or(own)).await;
        match answered {
            // The server's change log was replaced, so the server does not know the revision that
            // this client received. The stream will detect this and clear the cache. The question
            // itself can still be decided.
            Err(Error::RevisionUnknown { .. }) if min.is_some_and(|min| min != own) => {
                let answered = transport.introspect(question, own).await?;
                self.read_answer(question, None, answered)
            }
            answered => self.read_answer(question, pending.as_ref(), answered?),
        }
    }

    /// Returns whether all changes up to the revision that the question requires were received.
    fn covers(&self, own: &str, pending: &PendingRequest) -> bool {
        let received = |own| self.0.cache.has_received(own);
        let comparable = Revision::parse(&pending.min_revision).is_ok();
        comparable && Revision::parse(own).is_ok_and(received)
    }

    fn read_answer(
        &self,
        question: &Question<'_>,
        pending: Option<&PendingRequest>,
        TimedAnswer { message, sent }: TimedAnswer,
    ) -> Result<Answer, Error> {
        let cache = &self.0.cache;
        let parsed = convert::answer(message)?;
        if let Verdict::Active(results) = &parsed.verdict
            && results.len() != question.actions.len()
        {
            return Err(Error::Unreadable { what: "results" });
        }
        if let Some(at) = parsed.evaluated_at {
            cache.note_server_time(sent, at);
        }
        let asked = !question.actions.is_empty();
        let Some((facts, at)) = parsed.facts.zip(parsed.evaluated_at) else {
            return Ok(Answer::new(parsed.verdict, None, asked, false));
        };
        let kept = Arc::new(CachedFacts {
            facts,
            asked_at: sent,
        });
        // The facts must not be cached if this client evaluates them to a different verdict than
        // the server.
        let key = question.stack_api_key;
        let ours = cache.evaluate(&kept.facts, (key, question.actions), at);
        if let (Some(pending), Some(digest), true) = (
            pending,
            secret::recognize(question.token),
            ours == parsed.verdict,
        ) {
            cache.keep(pending, digest, &kept);
        }
        Ok(Answer::new(parsed.verdict, Some(kept), asked, false))
    }
}

/// Returns the later of two revisions of the same change log. `own` may be empty.
fn later<'a>(own: &'a str, received: &'a str) -> &'a str {
    match (Revision::parse(own), Revision::parse(received)) {
        (Ok(own_point), Ok(received_point)) if own_point.position > received_point.position => own,
        _ => received,
    }
}
