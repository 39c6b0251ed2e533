//! Why a well-formed request from a known caller is refused. These are conditions; they are mapped
//! to status codes elsewhere.

use super::{field::Violations, id::TokenUid, stack::TokenLimit, timestamp::Timestamp};

/// A token that could be revoked to make room for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The token.
    pub uid: TokenUid,
    /// The token's name.
    pub name: String,
    /// Why the token is a candidate.
    pub why: Why,
}

/// Why a token is a candidate for revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The token expires at this time, sooner than any other token.
    ExpiresSoonest(Timestamp),
    /// The token was issued at this time and has never been used.
    NeverUsed(Timestamp),
    /// The token was last used at this time, and is one of those that have been unused for the
    /// longest time.
    LastUsed(Timestamp),
}

/// A refusal. The request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's kind or role is not sufficient.
    #[error("the caller is not: {required}")]
    RoleRequired {
        /// Which callers are allowed.
        required: String,
    },
    /// The stack does not exist, or the caller has no role in it.
    #[error("no such stack")]
    StackNotFound,
    /// The token does not exist in this stack.
    #[error("no such token in this stack")]
    TokenNotFound,
    /// Another live token of the stack already has this name.
    #[error("the name is taken")]
    NameTaken,
    /// The request id was used before, and the earlier result cannot be returned again.
    #[error("the request id is used")]
    RequestIdReused {
        /// The token that the earlier request issued or rotated.
        token_uid: TokenUid,
    },
    /// Fields are invalid. Whether they are can be decided only once it is known that the request
    /// is not a retry.
    #[error("fields are wrong")]
    Invalid(Violations),
    /// The stack key is in use, or was used by a removed stack.
    #[error("the stack key is taken")]
    StackKeyTaken,
    /// The stack already has its maximum number of live tokens (R6).
    #[error("{} of {} live tokens", limit.used, limit.max)]
    LimitReached {
        /// The current number of live tokens and the maximum.
        limit: TokenLimit,
        /// Up to three tokens that could be revoked.
        candidates: Vec<Candidate>,
    },
    /// The token is revoked, which is final (R8).
    #[error("the token is revoked")]
    TokenRevoked,
    /// The token has expired, which is final (R8).
    #[error("the token has expired")]
    TokenExpired,
    /// The stack is suspended.
    #[error("the stack is suspended")]
    StackSuspended,
    /// The stack would be left without its owner. A stack always has exactly one owner (R2).
    #[error("the owner stays")]
    OwnerRequired,
    /// The set of tokens to revoke is no longer the one that was previewed.
    #[error("the previewed set has changed")]
    PreviewChanged {
        /// The number of tokens in the current set.
        count: usize,
    },
    /// The caller has made too many changes, or has presented too many unrecognised tokens.
    #[error("rate limited")]
    RateLimited {
        /// The number of milliseconds until the next request is admitted.
        retry_after_ms: u64,
    },
}

impl Refusal {
    /// Returns the name of the reason in the API (`ErrorReason`), without the prefix.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::RoleRequired { .. } => "ROLE_REQUIRED",
            Self::StackNotFound => "STACK_NOT_FOUND",
            Self::TokenNotFound => "TOKEN_NOT_FOUND",
            Self::NameTaken => "NAME_TAKEN",
            Self::RequestIdReused { .. } => "REQUEST_ID_REUSED",
            Self::Invalid(_) => "INVALID_FIELD",
            Self::StackKeyTaken => "STACK_KEY_TAKEN",
            Self::LimitReached { .. } => "TOKEN_LIMIT_REACHED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::StackSuspended => "STACK_SUSPENDED",
            Self::OwnerRequired => "OWNER_REQUIRED",
            Self::PreviewChanged { .. } => "PREVIEW_CHANGED",
            Self::RateLimited { .. } => "RATE_LIMITED",
        }
    }
}
