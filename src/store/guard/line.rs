//! The lines of the journal. They name tokens and stacks by their ids, and hold no secret, no digest
//! and no person (R9).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::mark::GuardFile;
use crate::domain::permissions::Draft;

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store) enum Line {
    /// To which guard and to which epoch the lines that follow belong. The first line of a file.
    Of(GuardFile),
    /// A transaction is about to be committed that takes something away.
    Intent(Intent),
    /// How that transaction ended.
    Outcome {
        /// The transaction.
        change: String,
        /// Whether it was committed. If not, it changed nothing.
        committed: bool,
    },
}

/// What a transaction does to one token or to one stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::store) struct Intent {
    /// The transaction. Empty until it is announced.
    pub change: String,
    /// When the change was decided, in microseconds since the Unix epoch. Never decreases within a
    /// stack.
    pub at: i64,
    /// The position in the change log.
    pub position: i64,
    pub stack: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// The kind of the change, as in the change log.
    pub kind: String,
    pub effect: Effect,
}

/// What a change leaves behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store) enum Effect {
    /// The token, as it is after the change.
    Token(Box<TokenAfter>),
    /// The token has ended for good by time.
    Expired,
    /// The secrets of these generations have ended.
    SecretsEnded(Vec<u32>),
    /// All secrets before this generation have ended.
    SecretsEndedBefore(u32),
    /// The sessions that the token had have ended.
    SessionsEnded,
    /// The stack, as it is after the change.
    Stack { suspended: bool, removed: bool },
    /// A person lost or got a role. A person must look at that after a restore.
    Members,
}

/// The parts of a token that say what it still permits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct TokenAfter {
    pub revoked: bool,
    pub ended: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub permissions: Draft,
    /// The generation of the newest secret.
    pub generation: u32,
    /// The secrets that have not ended for good.
    pub secrets: Vec<Secret>,
    /// Whether the change also ended the sessions of the token.
    #[serde(default)]
    pub sessions_ended: bool,
}

/// A secret that has not ended for good, without the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Secret {
    pub generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
    #[serde(default)]
    pub until_first_use: bool,
}
