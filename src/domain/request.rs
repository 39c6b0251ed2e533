//! The idempotency key of a call, which consists of the caller's request id and a fingerprint of
//! the request.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::{field::Problem, text};

/// For how long after the first call a retry of the same request gets the original result.
pub const RETRY_FOR: Duration = Duration::from_mins(10);

/// The SHA-256 digest of a request. It shows whether a retry has the same content, without storing
/// that content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Hashes the bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(fingerprint)
    }

    /// Restores a fingerprint from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A call with an idempotency key, which the caller can retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's request id.
    pub id: String,
    /// The fingerprint of the request without the request id.
    pub content: Fingerprint,
}

impl Request {
    /// Builds the idempotency key from the request id and from `content`, the encoded request
    /// without the request id. Returns `None` if the request id is empty.
    ///
    /// # Errors
    /// Returns a [`Problem`] for an id that is not 1 to 64 characters of `[A-Za-z0-9._-]`.
    pub fn parse(id: &str, content: &[u8]) -> Result<Option<Self>, Problem> {
        if id.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            id: text::parse_slug(id)?,
            content: Fingerprint::of(content),
        }))
    }
}
