//! Defines why a well-formed request from an authenticated caller is refused. `grpc::status` maps
//! these conditions to status codes.

use super::{
    etag::Etag,
    federation::Obstacle,
    field::Violations,
    id::{StackUid, TokenUid},
    stack::{Role, TokenLimit},
    timestamp::Timestamp,
};

/// A token that could be revoked so that a new one can be issued.
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
    /// The token was last used at this time, and is among the tokens that have been unused for the
    /// longest time.
    LastUsed(Timestamp),
}

/// Who may make a call. Any one of these is sufficient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRequired {
    /// The roles in the stack that may make the call.
    pub roles: Vec<Role>,
    /// The callers that may make the call whatever their role.
    pub callers: Vec<CallerRequired>,
    /// The caller's role in the stack. `None` if the caller has no role or its role was not read.
    pub role: Option<Role>,
}

/// A kind of caller that may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerRequired {
    /// Any user.
    User,
    /// An operator.
    Operator,
    /// A service with the introspect role.
    Introspector,
    /// Any service.
    Service,
    /// A workload.
    Workload,
}

impl CallerRequired {
    /// Returns the name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Operator => "OPERATOR",
            Self::Introspector => "INTROSPECTOR",
            Self::Service => "SERVICE",
            Self::Workload => "WORKLOAD",
        }
    }
}

/// A refusal. The request has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's kind or role is not sufficient.
    #[error("the caller's kind or role is not sufficient")]
    RoleRequired(RoleRequired),
    /// The stack does not exist, or the caller has no role in it.
    #[error("no such stack")]
    StackNotFound,
    /// The token does not exist in this stack.
    #[error("no such token in this stack")]
    TokenNotFound,
    /// Another live token of the stack already has this name.
    #[error("the name is taken")]
    NameTaken {
        /// The token that has the name.
        token_uid: TokenUid,
    },
    /// The request id was used before, and the earlier result cannot be returned again.
    #[error("the request id is used")]
    RequestIdReused {
        /// The token that the earlier request issued or rotated.
        token_uid: TokenUid,
    },
    /// The request id was used for a call with other content.
    #[error("the request id is used for another call")]
    RequestIdTaken,
    /// Fields are invalid. This refusal is for fields that can be checked only after it is known
    /// that the request is not a retry.
    #[error("fields are invalid")]
    Invalid(Violations),
    /// The stack key is in use, or was used by a removed stack.
    #[error("the stack key is taken")]
    StackKeyTaken {
        /// The stack that has or had the key.
        stack_uid: StackUid,
        /// Whether that stack was removed.
        removed: bool,
    },
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
    #[error("a stack must keep its owner")]
    OwnerRequired,
    /// The set of tokens to revoke is no longer the one that was previewed.
    #[error("the previewed set has changed")]
    PreviewChanged {
        /// The number of tokens in the current set.
        count: usize,
    },
    /// The token is not the version that the caller has read.
    #[error("the token has changed")]
    EtagMismatch {
        /// The current version.
        etag: Etag,
    },
    /// The token is federated, so it has no secret of its own.
    #[error("the token is federated")]
    TokenFederated,
    /// The workload's JWT is not exchanged. Nothing about the cause may be disclosed to the caller.
    #[error("the exchange is refused")]
    ExchangeRefused(Obstacle),
    /// The token or the workload already has its maximum number of live sessions.
    #[error("at most {max} live sessions")]
    SessionLimit {
        /// The limit that was reached.
        max: u32,
    },
    /// The caller has made too many changes, or has presented too many unrecognized tokens.
    #[error("rate limited")]
    RateLimited {
        /// The number of milliseconds until the next request is admitted.
        retry_after_ms: u64,
    },
}

impl Refusal {
    /// Returns the cause that is withheld from the caller and recorded in the audit.
    #[must_use]
    pub const fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::ExchangeRefused(obstacle) => Some(*obstacle),
            Self::SessionLimit { .. } => Some(Obstacle::SessionLimit),
            _ => None,
        }
    }

    /// Returns the name of the reason in the API (`ErrorReason`), without the prefix.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::RoleRequired(_) => "ROLE_REQUIRED",
            Self::StackNotFound => "STACK_NOT_FOUND",
            Self::TokenNotFound => "TOKEN_NOT_FOUND",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::RequestIdReused { .. } | Self::RequestIdTaken => "REQUEST_ID_REUSED",
            Self::Invalid(_) => "INVALID_FIELD",
            Self::StackKeyTaken { .. } => "STACK_KEY_TAKEN",
            Self::LimitReached { .. } => "TOKEN_LIMIT_REACHED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::StackSuspended => "STACK_SUSPENDED",
            Self::OwnerRequired => "OWNER_REQUIRED",
            Self::PreviewChanged { .. } => "PREVIEW_CHANGED",
            Self::EtagMismatch { .. } => "ETAG_MISMATCH",
            Self::TokenFederated => "TOKEN_FEDERATED",
            Self::ExchangeRefused(_) => "EXCHANGE_REFUSED",
            Self::SessionLimit { .. } => "SESSION_LIMIT",
            Self::RateLimited { .. } => "RATE_LIMITED",
        }
    }
}
