//! Why a well-formed request from a known caller is refused: conditions, not status codes.

use super::{field::Violations, id::TokenUid, stack::TokenLimit, timestamp::Timestamp};

/// A token that could be revoked to make room for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The token.
    pub uid: TokenUid,
    /// Its name.
    pub name: String,
    /// Why it is a candidate.
    pub why: Why,
}

/// Why a token is a candidate for revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It expires sooner than any other token, at this time.
    ExpiresSoonest(Timestamp),
    /// It was issued at this time and never used.
    NeverUsed(Timestamp),
    /// It was last used at this time, and is among the longest idle.
    LastUsed(Timestamp),
}

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's kind or role is not sufficient.
    #[error("the caller is not: {required}")]
    RoleRequired {
        /// Who is allowed.
        required: String,
    },
    /// The stack does not exist, or the caller has no role in it.
    #[error("no such stack")]
    StackNotFound,
    /// The token does not exist in this stack.
    #[error("no such token in this stack")]
    TokenNotFound,
    /// A live token of the stack has this name.
    #[error("the name is taken")]
    NameTaken,
    /// The request id was used before, and its result cannot be returned again.
    #[error("the request id is used")]
    RequestIdReused {
        /// The token that the earlier request created.
        token_uid: TokenUid,
    },
    /// Fields that can only be judged invalid once the request is known not to be a retry.
    #[error("fields are wrong")]
    Invalid(Violations),
    /// The stack key is or was in use.
    #[error("the stack key is taken")]
    StackKeyTaken,
    /// The stack has its maximum number of live tokens (R6).
    #[error("{} of {} live tokens", limit.used, limit.max)]
    LimitReached {
        /// The current number and the maximum.
        limit: TokenLimit,
        /// Up to three tokens that could be revoked.
        candidates: Vec<Candidate>,
    },
    /// The token is revoked; this is final (R8).
    #[error("the token is revoked")]
    TokenRevoked,
    /// The token has expired; this is final (R8).
    #[error("the token has expired")]
    TokenExpired,
    /// The stack is suspended.
    #[error("the stack is suspended")]
    StackSuspended,
    /// A stack has exactly one owner (R2).
    #[error("the owner stays")]
    OwnerRequired,
    /// The set of tokens differs from the previewed one.
    #[error("the previewed set has changed")]
    PreviewChanged {
        /// Number of tokens in the current set.
        count: usize,
    },
    /// This caller made too many changes, or presented too many unrecognised tokens.
    #[error("rate limited")]
    RateLimited {
        /// Milliseconds until the next request is admitted.
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
