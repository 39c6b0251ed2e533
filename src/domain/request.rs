//! What makes a call safe to repeat: the caller's own id for it, and what it asked.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::{field::Problem, text};

/// For how long after it was first seen a request may be answered again.
pub const RETRY_FOR: Duration = Duration::from_mins(10);

/// The SHA-256 of something that is only ever compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(fingerprint)
    }

    /// One that was told before.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A call that its caller may repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The caller's id for it.
    pub id: String,
    /// What it asked, without that id.
    pub content: Fingerprint,
}

impl Request {
    /// The request of this id; `None` where the caller gave none. `content` is all that it
    /// asked, less the id.
    ///
    /// # Errors
    /// A problem for an id that is not 1 to 64 of `[A-Za-z0-9._-]`.
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
