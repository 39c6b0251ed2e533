//! The idempotency key of a call: the caller's request id and a fingerprint of the request.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::{field::Problem, text};

/// How long after the first call a retry gets the same answer.
pub const RETRY_FOR: Duration = Duration::from_mins(10);

/// A SHA-256 digest that is only compared.
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

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A call that can be retried with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's request id.
    pub id: String,
    /// Fingerprint of the request without its id.
    pub content: Fingerprint,
}

impl Request {
    /// Builds the key from the request id and `content`, the encoded request without that id;
    /// `None` if there is no id.
    ///
    /// # Errors
    /// A [`Problem`] for an id that is not 1 to 64 characters of `[A-Za-z0-9._-]`.
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
