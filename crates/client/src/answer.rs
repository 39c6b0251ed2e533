//! The answer to a question: the verdict, and the facts about an active token.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use stacktoken_core::{
    labels::Labels,
    permissions::Permissions,
    verdict::{Facts, Reason, SessionFacts, StackFacts, TokenFacts, Verdict},
};

/// The cached facts about a secret. Verdicts are never cached.
#[derive(Debug)]
pub(super) struct CachedFacts {
    pub facts: Facts,
    /// When the question was sent to which the server returned these facts.
    pub asked_at: Duration,
}

impl Borrow<Facts> for CachedFacts {
    fn borrow(&self) -> &Facts {
        &self.facts
    }
}

/// The answer to a question about a token. It comes either from the server, or from cached facts
/// that are no older than the freshness bound and were evaluated with the same rules as on the
/// server.
#[derive(Clone, Debug)]
pub struct Answer {
    verdict: Verdict,
    /// The facts about the token; `Some` only if it is active.
    known: Option<Arc<CachedFacts>>,
    asked: bool,
    from_memory: bool,
}

impl Answer {
    pub(super) fn new(
        verdict: Verdict,
        known: Option<Arc<CachedFacts>>,
        asked: bool,
        from_memory: bool,
    ) -> Self {
        let active = matches!(verdict, Verdict::Active(_));
        Self {
            known: known.filter(|_| active),
            verdict,
            asked,
            from_memory,
        }
    }

    /// Returns whether the token is live and belongs to this stack. The result is `true` even if an
    /// action is denied, so use [`Self::allowed`] to decide whether the request may proceed.
    #[must_use]
    pub const fn active(&self) -> bool {
        matches!(self.verdict, Verdict::Active(_))
    }

    /// Returns whether the token is active and may perform every action that was asked about;
    /// `false` if no action was asked about.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.asked && self.verdict.reason().is_none()
    }

    /// Returns why the token is not active. If it is active, returns why the first denied action is
    /// denied, or `None` if no action is denied.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.verdict.reason()
    }

    /// Returns the verdict. For an active token, the verdict has one result per action, in the
    /// order in which the actions were asked about.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the facts about the token, or `None` if it is not active.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.known.as_ref().map(|known| &known.facts.token)
    }

    /// Returns the labels of the token, or `None` if it is not active.
    #[must_use]
    pub fn labels(&self) -> Option<&Labels> {
        self.token().map(|token| &token.labels)
    }

    /// Returns the facts about the stack, or `None` if the token is not active.
    #[must_use]
    pub fn stack(&self) -> Option<&StackFacts> {
        self.known.as_ref().map(|known| &known.facts.stack)
    }

    /// Returns the session of a federated token whose secret was presented. Returns `None` for any
    /// other token, and if the token is not active.
    #[must_use]
    pub fn session(&self) -> Option<&SessionFacts> {
        self.known.as_ref()?.facts.session.as_deref()
    }

    /// Returns the permissions of the token, or of its session if the secret of a session was
    /// presented. Returns `None` if the token is not active.
    #[must_use]
    pub fn permissions(&self) -> Option<&Permissions> {
        self.known.as_ref().map(|known| &known.facts.permissions)
    }

    /// Returns whether the client answered without calling the server, either from the cache or
    /// because the text does not have the form of a token.
    #[must_use]
    pub const fn from_memory(&self) -> bool {
        self.from_memory
    }
}
