//! Authentication: maps an `authorization` value or a client certificate to a caller or a
//! [`Rejection`]. Knows the issuers file, key sets and JWTs (RFC 8725); knows nothing of RPCs,
//! roles in stacks or stores.

mod algorithm;
mod authenticator;
mod certificates;
mod entry;
mod fetch;
mod file;
mod issuers;
mod join;
mod jwks;
mod jwks_cache;
mod jwt;
pub mod policy;
mod source;

use std::time::Duration;

pub use algorithm::Algorithm;
pub use authenticator::Authenticator;
pub use certificates::{CERTIFICATE_ISSUER, CertificateEntry, Certified};
pub use entry::IssuersError;
pub use fetch::{Fetch, FetchError, HttpFetcher, KeyFetcher};
pub use file::{Entries, parse};
pub use issuers::{IssuerEntry, SubjectPattern};
pub use source::KeySource;

/// How long keys stay trusted after the last successful fetch, unless set otherwise.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_hours(24);

/// Reason why a caller could not be authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no credential.
    #[error("no credential")]
    Missing,
    /// The credential is not accepted. The text is for the log, not for the caller; it is fixed
    /// and never contains a part of the credential.
    #[error("credential not accepted: {0}")]
    Invalid(&'static str),
    /// A management token was sent where a caller's own credential belongs.
    #[error("a management token is no credential of a caller")]
    TokenNotAcceptedHere,
    /// The only credential is a client certificate, and the file lists none of its names.
    #[error("the client certificate names nobody that the issuers file lists")]
    CertificateUnlisted,
    /// The client certificate has expired since its connection was established.
    #[error("the client certificate has expired")]
    CertificateExpired,
    /// The credential cannot be verified: its issuer's keys were never loaded, are too old, or are
    /// still being fetched.
    #[error("the keys of the issuer are not available")]
    KeysUnavailable,
}

/// Startup error: a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("jwks_file {path}: {why}; mend the file, or correct `jwks_file` in the issuers file")]
pub struct KeyFileUnusable {
    path: String,
    why: String,
}

/// Which kinds of callers can be authenticated at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The keys of at least one entry for users are trusted.
    pub users: bool,
    /// The keys of at least one entry for services are trusted, or certificates identify services.
    pub services: bool,
    /// The issuers without trusted keys, in file order, each once.
    pub unavailable: Vec<String>,
}
