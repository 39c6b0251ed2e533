//! A question about a token, and the check whether it is well-formed. Only a well-formed question
//! is answered from the cache. A malformed question is sent to the server, which reports the
//! errors.

use std::fmt;

use crate::pb::v1;
use stacktoken_core::{catalogue, secret, verdict::ActionQuestion};

/// The server's limits on a question: the number of actions, the number of facts of an action, and
/// the length of a name in bytes.
const MAX_ACTIONS: usize = 20;
const MAX_FACTS: usize = 16;
const MAX_NAME: usize = 64;

/// The parts of the response that the client always requests: the facts that it caches and
/// evaluates, and the facts that an [`Answer`](super::Answer) returns.
const INCLUDED: [v1::IntrospectInclude; 5] = [
    v1::IntrospectInclude::Permissions,
    v1::IntrospectInclude::Stack,
    v1::IntrospectInclude::Token,
    v1::IntrospectInclude::Labels,
    v1::IntrospectInclude::Session,
];

/// A question about a presented token. It borrows all its fields, so that creating a question
/// copies nothing.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The secret, as it was presented.
    pub token: &'a str,
    /// The stack API key that was presented with the secret.
    pub stack_api_key: &'a str,
    /// The actions that the incoming request is about to perform. All of them must be allowed.
    pub actions: &'a [ActionQuestion],
    /// A `revision` that the answer must reflect, such as one that Revoke returned to another
    /// caller.
    pub min_revision: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// Creates a question that asks whether a token is active and belongs to this stack.
    #[must_use]
    pub const fn new(token: &'a str, stack_api_key: &'a str) -> Self {
        Self {
            token,
            stack_api_key,
            actions: &[],
            min_revision: None,
        }
    }

    /// Also asks whether the token may perform these actions.
    #[must_use]
    pub const fn about(self, actions: &'a [ActionQuestion]) -> Self {
        Self { actions, ..self }
    }

    /// Requires an answer that reflects this revision or a later one.
    #[must_use]
    pub const fn since(self, revision: &'a str) -> Self {
        Self {
            min_revision: Some(revision),
            ..self
        }
    }

    /// Returns whether the question is well-formed.
    pub(super) fn is_plain(&self) -> bool {
        self.actions.len() <= MAX_ACTIONS && self.actions.iter().all(is_plain)
    }

    /// Returns the revision that the answer must reflect, if there is one.
    pub(super) fn revision(&self) -> Option<&'a str> {
        self.min_revision.filter(|text| !text.is_empty())
    }

    /// Builds the request message with this `min_revision`.
    pub(super) fn message(&self, min_revision: &str) -> v1::IntrospectRequest {
        v1::IntrospectRequest {
            token: self.token.to_owned(),
            stack_api_key: self.stack_api_key.to_owned(),
            actions: self.actions.iter().map(message).collect(),
            min_revision: min_revision.to_owned(),
            include: INCLUDED.map(Into::into).to_vec(),
        }
    }
}

/// Prints every field except the secret (R9).
impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("stack_api_key", &self.stack_api_key)
            .field("actions", &self.actions)
            .field("min_revision", &self.min_revision)
            .finish_non_exhaustive()
    }
}

fn is_plain(action: &ActionQuestion) -> bool {
    let plain = |text: &str| text.len() <= MAX_NAME && !secret::is_within(text);
    let named = [&action.branch, &action.branch_alias];
    catalogue::check_shape(&action.name).is_ok()
        // An empty name is not plain, because on the wire it means that there is no name.
        && named.into_iter().flatten().all(|name| !name.is_empty() && plain(name))
        && action.facts.len() <= MAX_FACTS
        && action.facts.keys().all(|name| !name.is_empty() && plain(name))
}

fn message(action: &ActionQuestion) -> v1::ActionQuestion {
    let facts = action.facts.iter();
    v1::ActionQuestion {
        name: action.name.clone(),
        branch: action.branch.clone().unwrap_or_default(),
        branch_alias: action.branch_alias.clone().unwrap_or_default(),
        facts: facts.map(|(name, value)| (name.clone(), *value)).collect(),
    }
}
