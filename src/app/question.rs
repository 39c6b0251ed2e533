//! Defines a question about a presented token.

use zeroize::Zeroizing;

use crate::domain::{revision::Revision, verdict::ActionQuestion};

/// An introspection request.
pub struct Question {
    /// The presented secret; wiped on drop.
    pub token: Zeroizing<String>,
    /// The stack key that was presented with the token; not validated.
    pub stack_api_key: String,
    /// The actions to check.
    pub actions: Vec<ActionQuestion>,
    /// Revision that the answer must reflect.
    pub min_revision: Option<Revision>,
    /// The facts that an active answer contains.
    pub include: Included,
}

/// The facts that an active answer contains in addition to the token's id and expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "parts that are asked for or not, each by itself"
)]
pub struct Included {
    /// The token's permissions.
    pub permissions: bool,
    /// Facts about the stack.
    pub stack: bool,
    /// Further facts about the token.
    pub token: bool,
    /// The token's labels.
    pub labels: bool,
    /// The session whose secret was presented.
    pub session: bool,
}
