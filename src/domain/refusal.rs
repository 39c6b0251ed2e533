//! Why a well-formed request of a known caller is refused: conditions, not codes.

use super::{field::Violations, id::TokenUid, stack::TokenLimit, timestamp::Timestamp};

/// A token that could go to make room for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The token.
    pub uid: TokenUid,
    /// Its name.
    pub name: String,
    /// Why it may not be missed.
    pub why: Why,
}

/// Why a token may not be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Of all tokens it expires soonest, at this instant.
    ExpiresSoonest(Timestamp),
    /// It was issued at this instant, and never used.
    NeverUsed(Timestamp),
    /// It was last used at this instant, and hardly any other has been idle for so long.
    LastUsed(Timestamp),
}

/// One refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's kind or role is not enough.
    #[error("the caller is not: {required}")]
    RoleRequired {
        /// Who would do.
        required: String,
    },
    /// No such stack, or one the caller has no part in.
    #[error("no such stack")]
    StackNotFound,
    /// No such token in this stack.
    #[error("no such token in this stack")]
    TokenNotFound,
    /// A live token of the stack has the name.
    #[error("the name is taken")]
    NameTaken,
    /// The caller's id for this request was seen before, and it cannot be answered again.
    #[error("the request id is used")]
    RequestIdReused {
        /// The token that came of it.
        token_uid: TokenUid,
    },
    /// Fields that only turn out wrong once it is known that this is not a repetition.
    #[error("fields are wrong")]
    Invalid(Violations),
    /// The key is in use or was.
    #[error("the stack key is taken")]
    StackKeyTaken,
    /// As many live tokens as there may be (R6).
    #[error("{} of {} live tokens", limit.used, limit.max)]
    LimitReached {
        /// Now and at most.
        limit: TokenLimit,
        /// Up to three tokens that could go.
        candidates: Vec<Candidate>,
    },
    /// The token is revoked, for good (R8).
    #[error("the token is revoked")]
    TokenRevoked,
    /// The token has expired, for good (R8).
    #[error("the token has expired")]
    TokenExpired,
    /// The stack is suspended.
    #[error("the stack is suspended")]
    StackSuspended,
    /// A stack has exactly one owner (R2).
    #[error("the owner stays")]
    OwnerRequired,
    /// The set of tokens is not the one that was previewed.
    #[error("the previewed set has changed")]
    PreviewChanged {
        /// How many tokens it has now.
        count: usize,
    },
    /// Too many changes, or too many unrecognised tokens, from this caller.
    #[error("rate limited")]
    RateLimited {
        /// In how many milliseconds the next one is admitted.
        retry_after_ms: u64,
    },
}

impl Refusal {
    /// The reason's name in the contract (`ErrorReason`), without the prefix.
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
