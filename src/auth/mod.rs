//! Authentication: maps an `authorization` value or a client certificate to a caller or a
//! [`Rejection`]. This module handles the issuers file, key sets and JWTs (RFC 8725). Except for
//! the policy table, it does not depend on RPCs, roles in stacks or the store.

mod algorithm;
mod assertions;
mod authenticator;
mod bearer;
mod certificates;
mod connection_credentials;
mod entry;
mod explained;
mod fetch;
mod file;
mod inspect;
mod issuers;
mod join;
mod jwks;
mod jwks_cache;
mod jwt;
pub mod policy;
mod required;
mod source;
mod unverified;
mod workloads;

use std::time::Duration;

pub use algorithm::Algorithm;
pub use authenticator::Authenticator;
pub use certificates::{CERTIFICATE_ISSUER, CertificateEntry, ClientCertificate};
pub use connection_credentials::ConnectionCredentials;
pub use entry::IssuersError;
pub use fetch::{Fetch, FetchError, HttpFetcher, KeyFetcher, fetch_with_credential};
pub use file::{Entries, parse};
pub use inspect::{InspectedKeys, LoadedKeys};
pub use issuers::{IssuerEntry, RequiredClaim, SubjectPattern};
pub use source::{KeySource, is_safe_url};
pub use unverified::Unverified;

/// Default time for which keys stay trusted after the last successful fetch.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_hours(24);

/// Why a caller could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The request contains no credential.
    #[error("no credential")]
    Missing,
    /// The credential is not accepted. The text is for the log and not for the caller. The text is
    /// fixed and never contains a part of the credential.
    #[error("credential not accepted: {0}")]
    Invalid(&'static str),
    /// A management token was sent where a caller's own credential belongs.
    #[error("a management token is not a caller's credential")]
    TokenNotAcceptedHere,
    /// The only credential is a client certificate, and the issuers file lists none of its names.
    #[error("no entry of the issuers file matches the client certificate")]
    CertificateUnlisted,
    /// The client certificate has expired since its connection was established.
    #[error("the client certificate has expired")]
    CertificateExpired,
    /// The credential cannot be verified, because the keys of its issuer were never loaded, are too
    /// old or are still being fetched.
    #[error("the keys of the issuer are not available")]
    KeysUnavailable,
}

/// The error at startup that a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("jwks_file {path}: {why}; correct the file, or correct `jwks_file` in the issuers file")]
pub struct KeyFileUnusable {
    path: String,
    why: String,
}

/// Which kinds of callers can be authenticated at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether the keys of at least one entry for users are trusted.
    pub users: bool,
    /// Whether the keys of at least one entry for services are trusted, or a service can be
    /// identified by certificate.
    pub services: bool,
    /// The issuers without trusted keys, each once, in the order of the issuers file.
    pub unavailable: Vec<String>,
}
