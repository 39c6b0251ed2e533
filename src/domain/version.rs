//! The version of a token. A change can be made conditional on it.

use super::{
    etag::Etag,
    refusal::Refusal,
    timestamp::Timestamp,
    token::{Token, TokenState},
};

impl Token {
    /// Computes the version of the token at `now`. It covers what owners can set, the state, the
    /// generation, and the end that was last set for a former secret. It does not cover uses:
    /// neither when a token or a secret was used, nor whether a first use has ended a former
    /// secret.
    #[must_use]
    pub fn etag(&self, now: Timestamp) -> Etag {
        let state = match self.state(now) {
            TokenState::Active => "active",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        };
        let permissions = serde_json::to_string(&self.permissions.draft()).unwrap_or_default();
        let labels = serde_json::to_string(&self.labels).unwrap_or_default();
        let overlap = self.secrets.last_overlap().map(|(generation, ending)| {
            let (ends_at, on_first_use) = (ending.at.as_micros(), ending.on_first_use);
            format!("{generation} {ends_at} {on_first_use}")
        });
        let expires_at = self.expires_at.map(|at| at.as_micros().to_string());
        let federation = self.federation.as_ref();
        let federation =
            federation.map(|trusted| serde_json::to_string(trusted).unwrap_or_default());
        Etag::of(&[
            &self.uid.to_string(),
            self.name.as_str(),
            self.description.as_str(),
            &permissions,
            &labels,
            &expires_at.unwrap_or_default(),
            state,
            &self.generation.to_string(),
            &overlap.unwrap_or_default(),
            &federation.unwrap_or_default(),
        ])
    }

    /// Checks that the current etag equals `expected`, if the caller sent one.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`] with the current version if it is not.
    pub fn require_etag(&self, expected: Option<&Etag>, now: Timestamp) -> Result<(), Refusal> {
        let current = self.etag(now);
        match expected {
            Some(expected) if *expected != current => Err(Refusal::EtagMismatch { etag: current }),
            _ => Ok(()),
        }
    }
}
