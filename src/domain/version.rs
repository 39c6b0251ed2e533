//! Computes the version of a token, on which a change can be made conditional.

use super::{
    etag::Etag,
    refusal::Refusal,
    timestamp::Timestamp,
    token::{Token, TokenState},
};

impl Token {
    /// Computes the version of the token at `now`. The version covers what owners can set, the
    /// state, the generation, and the end that was last set for a former secret. It does not cover
    /// uses: neither when a token or a secret was used, nor whether a first use has ended a former
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
        let uid = self.uid.to_string();
        let expires_at = expires_at.unwrap_or_default();
        let generation = self.generation.to_string();
        let overlap = overlap.unwrap_or_default();
        let mut parts = vec![
            uid.as_str(),
            self.name.as_str(),
            self.description.as_str(),
            &permissions,
            &labels,
            &expires_at,
            state,
            &generation,
            &overlap,
        ];
        // Only federated tokens have this part. Another replica may run the previous release, which
        // does not know federated tokens and must compute the same etag for an ordinary token.
        let federation = self.federation.as_ref();
        let federation = federation.map(serde_json::to_string);
        let federation = federation.map(Result::unwrap_or_default);
        parts.extend(federation.as_deref());
        Etag::of(&parts)
    }

    /// Checks that the current etag equals `expected`, if the caller sent one.
    ///
    /// # Errors
    /// Returns [`Refusal::EtagMismatch`] with the current etag if they differ.
    pub fn require_etag(&self, expected: Option<&Etag>, now: Timestamp) -> Result<(), Refusal> {
        let current = self.etag(now);
        match expected {
            Some(expected) if *expected != current => Err(Refusal::EtagMismatch { etag: current }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{federation::Federation, token::tests::token};

    #[test]
    fn the_etag_of_an_ordinary_token_is_that_of_the_version_before_federated_tokens() {
        let now = Timestamp::from_micros(1).unwrap();
        let mut token = token(None);
        let uid = token.uid.to_string();
        let permissions = serde_json::to_string(&token.permissions.draft()).unwrap();
        let former = Etag::of(&[&uid, "ci", "", &permissions, "{}", "", "active", "1", ""]);
        assert_eq!(token.etag(now), former);
        token.federation = Some(Federation {
            issuer: "ci".to_owned(),
            rules: Vec::new(),
            session_for: std::time::Duration::from_mins(15),
        });
        assert_ne!(token.etag(now), former);
    }
}
