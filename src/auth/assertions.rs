//! Checks what the JWT of a workload must have in addition to a valid form and signature.

use std::{collections::HashSet, time::Duration};

use super::{
    issuers::IssuerEntry,
    jwt::{Cause, Jwt, leeway_micros, micros},
};
use crate::domain::{
    federation::{FederationIssuer, Workload},
    timestamp::Timestamp,
};

/// Maximum time between `iat` and `exp` of a workload's JWT.
const MAX_LIFE: Duration = Duration::from_hours(24);

/// The audiences of all entries of the issuers file, and the audiences of its entries for
/// workloads.
pub(super) struct Audiences {
    all: HashSet<String>,
    workloads: HashSet<String>,
}

impl Audiences {
    pub(super) fn of(entries: &[IssuerEntry]) -> Self {
        let (mut all, mut workloads) = (HashSet::new(), HashSet::new());
        for entry in entries {
            all.insert(entry.audience.clone());
            if entry.workload.is_some() {
                workloads.insert(entry.audience.clone());
            }
        }
        Self { all, workloads }
    }

    /// Returns whether a JWT is for a workload audience and also for another audience of this
    /// service.
    pub(super) fn are_mixed_in(&self, jwt: &Jwt<'_>) -> bool {
        jwt.audiences_among(&self.workloads) > 0 && jwt.audiences_among(&self.all) > 1
    }
}

impl Jwt<'_> {
    /// Returns the workload that the JWT identifies. Call this only after the JWT was checked against
    /// the entry of the issuer and its signature was verified.
    pub(super) fn workload(&self, issuer: &FederationIssuer) -> Result<Workload, Cause> {
        let (iat, exp) = self.life()?;
        let instant = |micros| Timestamp::from_micros(micros).ok_or("a time is out of range");
        let (subject, provider) = (self.subject(), issuer.provider);
        let jti = self.text("jti").filter(|jti| !jti.is_empty());
        Ok(Workload {
            issuer: issuer.name.clone(),
            jti: jti.map(str::to_owned),
            subject: subject.to_owned(),
            subject_description: provider.subject_description(subject, &self.claims),
            account_key: provider.account_key(subject, &self.claims),
            claims: self.claims.clone(),
            iat: instant(iat)?,
            exp: instant(exp)?,
        })
    }

    /// Returns `iat` and `exp` in microseconds.
    ///
    /// # Errors
    /// Returns the cause if they are not valid for the JWT of a workload.
    pub(super) fn life(&self) -> Result<(i64, i64), Cause> {
        let issued = self.claims.get("iat").ok_or("iat is absent")?;
        let issued = micros(issued).ok_or("iat is not a number")?;
        let expires = self.valid_until_micros.saturating_sub(leeway_micros());
        let longest = i64::try_from(MAX_LIFE.as_micros()).unwrap_or(i64::MAX);
        match expires.checked_sub(issued) {
            Some(life) if (1..=longest).contains(&life) => Ok((issued, expires)),
            _ => Err("exp is not within 24 hours after iat"),
        }
    }

    /// Returns whether `iat` is in the future.
    pub(super) fn is_issued_later(&self) -> bool {
        let latest = self.parsed_at.as_micros().saturating_add(leeway_micros());
        let issued = self.claims.get("iat").and_then(micros);
        issued.is_some_and(|issued| issued > latest)
    }
}
