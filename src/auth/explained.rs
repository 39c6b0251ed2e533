//! Verifies an assertion for `ExplainExchange`, which is not the caller's own credential.

use super::{Rejection, authenticator::Authenticator, bearer::MAX_VALUE_BYTES, jwt::Jwt};
use crate::domain::federation::{
    FederationIssuers, Unverified, Verified, VerifyWorkload, Verifying,
};

impl Authenticator {
    /// Returns the configured issuers of workload identities.
    #[must_use]
    pub fn federation_issuers(&self) -> FederationIssuers {
        let issuers = self.entries.iter();
        issuers
            .filter_map(|(entry, _)| entry.workload.clone())
            .collect()
    }

    /// Verifies an assertion that is not the caller's own credential. The result states whether the
    /// assertion is valid now only if its signature is valid.
    async fn verify_other(&self, assertion: &str) -> Result<Verified, Unverified> {
        if assertion.len() > MAX_VALUE_BYTES {
            return Err(Unverified::Invalid);
        }
        let now = self.deps.clock.now();
        let invalid = |_| Unverified::Invalid;
        let jwt = Jwt::parse_untimely_too(assertion, now).map_err(invalid)?;
        let entry = match self.find_with_fresh_keys(&jwt).await {
            Ok(found) => found.entry,
            Err(Rejection::KeysUnavailable) => return Err(Unverified::KeysUnavailable),
            Err(_) => return Err(Unverified::Invalid),
        };
        let issuer = entry.workload.as_ref().ok_or(Unverified::Invalid)?;
        Ok(Verified {
            workload: jwt.workload(issuer).map_err(invalid)?,
            is_valid_now: jwt.is_valid_now(),
        })
    }
}

impl VerifyWorkload for Authenticator {
    fn verify<'a>(&'a self, jwt: &'a str) -> Verifying<'a> {
        Box::pin(self.verify_other(jwt))
    }
}
