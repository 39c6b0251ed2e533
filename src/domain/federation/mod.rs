//! Federated tokens. A federated token has no secret of its own. Instead, it has rules that decide
//! which workloads may obtain session secrets.

pub mod evaluate;
mod issuers;
pub mod provider;
pub mod rules;
pub mod session;
mod workload;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::timestamp::Timestamp;

pub use self::{
    issuers::{FederationIssuer, FederationIssuers},
    provider::{Provider, Replay},
};

/// Which workloads may obtain session secrets of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federation {
    /// The operator's name of the issuer.
    pub issuer: String,
    /// The rules, all of which must match.
    pub rules: Vec<ClaimRule>,
    /// Maximum lifetime of a session.
    pub session_for: Duration,
}

impl Federation {
    /// Returns whether this federation admits the same workloads as `other`. Their maximum session
    /// lifetimes may differ.
    #[must_use]
    pub fn admits_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.rules == other.rules
    }
}

/// A claim and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRule {
    /// Names of the members that lead to the claim, the outermost first. A name may contain dots.
    pub path: Vec<String>,
    /// How the claim is compared.
    pub matches: ClaimMatch,
}

/// How a claim is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimMatch {
    /// The claim is exactly this text.
    Equals(String),
    /// The claim starts with this text, and something follows.
    Prefix(String),
}

/// A workload whose assertion was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Workload {
    /// The operator's name of the issuer.
    pub issuer: String,
    /// All claims of the assertion.
    pub claims: Map<String, Value>,
    /// The `jti` of the assertion.
    pub jti: Option<String>,
    /// The `sub` of the assertion.
    pub subject: String,
    /// A human-readable description of the workload.
    pub subject_description: String,
    /// The workload's account at the provider, to which limits apply.
    pub account_key: String,
    /// When the assertion was issued.
    pub iat: Timestamp,
    /// When the assertion expires.
    pub exp: Timestamp,
}

impl fmt::Debug for Workload {
    /// Omits the claims and ids of the assertion, which must not appear in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("issuer", &self.issuer)
            .field("subject_description", &self.subject_description)
            .finish_non_exhaustive()
    }
}

/// Why an exchange is refused. The caller of Exchange never learns the cause. The owner and the
/// admins of the stack can find it in the audit and with `ExplainExchange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "the contract documents each; see ExchangeObstacle"
)]
pub enum Obstacle {
    JwtInvalid,
    JwtExpired,
    OtherIssuer,
    StackNotAllowed,
    IssuerNotConfigured,
    RuleNotMatched,
    EventRefused,
    TokenRevoked,
    TokenExpired,
    StackSuspended,
    JwtReplayed,
    SessionLimit,
    /// The stack does not exist or has no federated token. This refusal is not audited.
    NoSuchToken,
    /// More than one token of the stack matches, and the request does not name one of them.
    Ambiguous,
    /// The permissions of the token and `narrow` have nothing in common.
    NothingPermitted,
}

impl Obstacle {
    /// Returns the name in the audit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::JwtInvalid => "JWT_INVALID",
            Self::JwtExpired => "JWT_EXPIRED",
            Self::OtherIssuer => "OTHER_ISSUER",
            Self::StackNotAllowed => "STACK_NOT_ALLOWED",
            Self::IssuerNotConfigured => "ISSUER_NOT_CONFIGURED",
            Self::RuleNotMatched => "RULE_NOT_MATCHED",
            Self::EventRefused => "EVENT_REFUSED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::StackSuspended => "STACK_SUSPENDED",
            Self::JwtReplayed => "JWT_REPLAYED",
            Self::SessionLimit => "SESSION_LIMIT",
            Self::NoSuchToken => "NO_SUCH_TOKEN",
            Self::Ambiguous => "AMBIGUOUS",
            Self::NothingPermitted => "NOTHING_PERMITTED",
        }
    }
}

/// The result of verifying the signature of a JWT that was sent to `ExplainExchange`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The workload.
    pub workload: Workload,
    /// Whether the JWT has not expired, and neither its `nbf` nor its `iat` is in the future. Otherwise,
    /// it would not be exchanged.
    pub is_valid_now: bool,
}

/// Why a JWT that was sent to `ExplainExchange` could not be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// The form, the signature, the issuer or the audience of the JWT is wrong.
    Invalid,
    /// The keys of the issuer are not available.
    KeysUnavailable,
}

/// The result of verifying a workload's JWT.
pub type Verifying<'a> = Pin<Box<dyn Future<Output = Result<Verified, Unverified>> + Send + 'a>>;

/// Verifies a workload's JWT that is part of a message. The authenticator implements this trait.
pub trait VerifyWorkload: Send + Sync {
    /// Verifies the JWT like the credential of a call, including the signature, but also accepts a
    /// JWT that is expired or not valid yet.
    fn verify<'a>(&'a self, jwt: &'a str) -> Verifying<'a>;
}

/// A verifier for a process without configured issuers. It rejects every JWT.
#[derive(Clone, Copy, Debug)]
pub struct NoWorkloads;

impl VerifyWorkload for NoWorkloads {
    fn verify<'a>(&'a self, _: &'a str) -> Verifying<'a> {
        Box::pin(std::future::ready(Err(Unverified::Invalid)))
    }
}
