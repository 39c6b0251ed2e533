//! The answer to a question: the verdict, and what is known of an active token.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use stacktoken_core::{
    permissions::Permissions,
    verdict::{Facts, Reason, StackFacts, TokenFacts, Verdict},
};

/// What is remembered of a secret: facts, never a verdict.
#[derive(Debug)]
pub(super) struct Kept {
    pub facts: Facts,
    /// When the question was sent that they answer.
    pub asked_at: Duration,
}

impl Borrow<Facts> for Kept {
    fn borrow(&self) -> &Facts {
        &self.facts
    }
}

/// What a token may do, as the server says it: from the server just now, or by its own rule
/// from memory that is no older than the freshness bound.
#[derive(Clone, Debug)]
pub struct Answer {
    verdict: Verdict,
    /// Only of an active token.
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

    /// Whether the token, with this stack, is live. A denied action leaves it true, so this
    /// is no permission for anything: see [`Self::allowed`].
    #[must_use]
    pub const fn active(&self) -> bool {
        matches!(self.verdict, Verdict::Active(_))
    }

    /// Whether the token is active and may do everything that was asked about. Where no
    /// action was asked about, nothing is allowed.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.asked && self.verdict.reason().is_none()
    }

    /// Why the token is not active; else why the first denied action is denied; else `None`.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.verdict.reason()
    }

    /// The verdict, of an active token with one result per action in the order asked.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Facts about the token; only of an active one.
    #[must_use]
    pub fn token(&self) -> Option<&TokenFacts> {
        self.known.as_ref().map(|known| &known.facts.token)
    }

    /// Facts about the stack; only of an active token.
    #[must_use]
    pub fn stack(&self) -> Option<&StackFacts> {
        self.known.as_ref().map(|known| &known.facts.stack)
    }

    /// What the token may do; only of an active one.
    #[must_use]
    pub fn permissions(&self) -> Option<&Permissions> {
        self.known.as_ref().map(|known| &known.facts.permissions)
    }

    /// Whether the server was not asked: the answer is from memory, or the token has not the
    /// form of one.
    #[must_use]
    pub const fn from_memory(&self) -> bool {
        self.from_memory
    }
}
