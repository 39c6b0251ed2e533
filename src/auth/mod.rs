//! Who calls: an `authorization` value or a client certificate in, a caller or a [`Rejection`]
//! out. Knows the
//! issuers file, key sets and JWTs (RFC 8725); knows nothing of RPCs, roles in stacks or stores.

mod algorithm;
mod authenticator;
mod certificates;
mod entry;
mod fetch;
mod file;
mod issuers;
mod join;
mod jwks;
mod jwt;
pub mod policy;
mod source;
mod store;

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

/// Why a credential makes no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no credential.
    #[error("no credential")]
    Missing,
    /// The credential is not accepted. The words are for a log line, not for the caller; they
    /// are fixed and never hold a part of the credential.
    #[error("credential not accepted: {0}")]
    Invalid(&'static str),
    /// A management token was sent where a caller's own credential belongs.
    #[error("a management token is no credential of a caller")]
    TokenNotAcceptedHere,
    /// A client certificate, and no other credential, whose names stand for nobody.
    #[error("the client certificate names nobody that the issuers file lists")]
    CertificateUnlisted,
    /// The client certificate has expired since its connection was made.
    #[error("the client certificate has expired")]
    CertificateExpired,
    /// The credential cannot be judged: its issuer's keys were never loaded or are too old.
    #[error("the keys of the issuer are not available")]
    KeysUnavailable,
}

/// Why the start cannot go on: a key file that must be mended.
#[derive(Debug, thiserror::Error)]
#[error("jwks_file {path}: {why}; mend the file, or correct `jwks_file` in the issuers file")]
pub struct KeyFileUnusable {
    path: String,
    why: String,
}

/// Which kinds of callers can be told apart at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The keys of at least one entry for users are trusted.
    pub users: bool,
    /// The keys of at least one entry for services are trusted.
    pub services: bool,
    /// The issuers without trusted keys, in file order, each once.
    pub unavailable: Vec<String>,
}
