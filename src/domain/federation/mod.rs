//! Federated tokens: which workloads may obtain session secrets of a token that has no secret of
//! its own.

pub mod evaluate;
pub mod provider;
pub mod rules;
mod workload;

use std::time::Duration;

use serde_json::{Map, Value};

use super::timestamp::Timestamp;

pub use self::provider::{Provider, Replay};

/// Which workloads may obtain session secrets of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// The operator's name of the issuer.
    pub issuer: String,
    /// The rules, all of which must match.
    pub rules: Vec<ClaimRule>,
    /// Longest life of a session.
    pub session_for: Duration,
}

/// A claim and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Names of the members that lead to the claim, the outermost first. A name may contain dots.
    pub path: Vec<String>,
    /// How the claim is compared.
    pub matches: ClaimMatch,
}

/// How a claim is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimMatch {
    /// The claim is exactly this text.
    Equals(String),
    /// The claim starts with this text, and something follows.
    Prefix(String),
}

/// A workload whose assertion was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The operator's name of the issuer.
    pub issuer: String,
    /// All claims of the assertion.
    pub claims: Map<String, Value>,
    /// The `jti` of the assertion.
    pub jti: Option<String>,
    /// The `sub` of the assertion.
    pub subject: String,
    /// The workload as people name it.
    pub subject_description: String,
    /// The account at the provider to which its exchanges are charged.
    pub account_key: String,
    /// When the assertion was issued.
    pub iat: Timestamp,
    /// When the assertion expires.
    pub exp: Timestamp,
}
