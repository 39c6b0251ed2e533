//! The answer to a question: the verdict, and what is known about an active token.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use stacktoken_core::{
    permissions::Permissions,
    verdict::{Facts, Reason, StackFacts, TokenFacts, Verdict},
};

/// The cached facts about a secret; never a verdict.
#[derive(Debug)]
pub(super) struct Kept {
    pub facts: Facts,
    /// When the question that these facts answer was sent.
    pub asked_at: Duration,
}

impl Borrow<Facts> for Kept {
    fn borrow(&self) -> &Facts {
        &self.facts
    }
}

/// What a token may do: answered by the server just now, or evaluated by the server's own rule from
/// cached facts that are no older than the freshness bound.
#[derive(Clone, Debug)]
pub struct Answer {
    verdict: Verdict,
    /// `Some` only for an active token.
    known: Option<Arc<Kept>>,
    asked: bool,
    from_memory: bool,
}

impl Answer {
    pub(super) fn new(
        verdict: Verdict,
        known: Option<Arc<Kept>>,
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

    /// Returns whether the token is live with this stack. It stays `true` if an action is denied,
    /// so it does not permit anything: see [`Self::allowed`].
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

    /// Returns why the token is not active, or else why the first denied action is denied;
    /// otherwise `None`.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.verdict.reason()
    }

    /// Returns the verdict. For an active token it has one result per action, in the order asked.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Returns the facts about the token; `None` unless it is active.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.known.as_ref().map(|known| &known.facts.token)
    }

    /// Returns the facts about the stack; `None` unless the token is active.
    #[must_use]
    pub fn stack(&self) -> Option<&StackFacts> {
        self.known.as_ref().map(|known| &known.facts.stack)
    }

    /// Returns what the token may do; `None` unless it is active.
    #[must_use]
    pub fn permissions(&self) -> Option<&Permissions> {
        self.known.as_ref().map(|known| &known.facts.permissions)
    }

    /// Returns whether the server was not asked: the answer comes from the cache, or the text does
    /// not have the form of a token.
    #[must_use]
    pub const fn from_memory(&self) -> bool {
        self.from_memory
    }
}
