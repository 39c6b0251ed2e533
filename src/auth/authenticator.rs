//! Maps credentials to callers with the entries of the issuers file. Caches verified credentials:
//! for all connections by their SHA-256, and per connection by their text. This module does not
//! know the format of a JWT, or when keys are fetched.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;

use super::{
    KeyFileUnusable, Readiness, Rejection,
    assertions::Audiences,
    bearer::{MAX_VALUE_BYTES, bearer},
    certificates::{self, CertificateEntry, ClientCertificate},
    connection_credentials::{CachedCaller, ConnectionCredentials},
    fetch::KeyFetcher,
    file::Entries,
    issuers::IssuerEntry,
    join::join,
    jwks::SignatureCheck,
    jwks_cache::{IssuerKeys, JwksDeps, RefreshOutcome},
    jwt::{Cause, Jwt},
    source::KeySource,
};
use crate::domain::{
    caller::{Actor, Caller, CallerKind},
    clock::{Clock, ClockReading},
    timestamp::Timestamp,
};

/// Maximum number of cached verified credentials.
const MAX_CACHED: usize = 10_000;

/// Authenticates callers by JWT or client certificate.
pub struct Authenticator {
    pub(super) deps: Arc<JwksDeps>,
    pub(super) entries: Vec<(IssuerEntry, usize)>,
    pub(super) key_caches: Vec<IssuerKeys>,
    certificates: Vec<CertificateEntry>,
    audiences: Audiences,
    verified: Cache<[u8; 32], CachedCaller>,
}

/// The entry that accepts a JWT, the index of its key cache, and the generation of the key sets
/// when the JWT was checked.
pub(super) struct MatchingEntry<'a> {
    pub entry: &'a IssuerEntry,
    key_cache: usize,
    generation: u64,
}

/// A rejection that is based on the current keys. Newer keys from the sources in `wanting` might
/// change the result.
struct PendingRejection {
    rejection: Rejection,
    wanting: Vec<usize>,
}

impl Authenticator {
    /// Creates an authenticator that has no keys yet. [`Self::load_files`] and [`Self::keep_fresh`]
    /// load them. If fetches fail, the keys stay trusted until `max_stale` after the last
    /// successful fetch.
    #[must_use]
    pub fn new(
        entries: Entries,
        fetcher: Arc<dyn KeyFetcher>,
        clock: Arc<dyn Clock>,
        max_stale: Duration,
    ) -> Self {
        let deps = Arc::new(JwksDeps {
            clock,
            fetcher,
            max_stale,
            generation: AtomicU64::new(0),
        });
        let mut key_caches = Vec::new();
        let mut known = HashMap::new();
        let certificates = entries.certificates;
        let audiences = Audiences::of(&entries.issuers);
        let entries = entries.issuers.into_iter().map(|entry| {
            let index = *known.entry(entry.source.clone()).or_insert_with(|| {
                key_caches.push(IssuerKeys::new(entry.source.clone(), Arc::clone(&deps)));
                key_caches.len() - 1
            });
            (entry, index)
        });
        Self {
            entries: entries.collect(),
            deps,
            key_caches,
            certificates,
            audiences,
            verified: Cache::new(MAX_CACHED),
        }
    }

    /// Loads every `jwks_file`. Call this at startup.
    ///
    /// # Errors
    /// [`KeyFileUnusable`] for the first file that cannot be read or contains no usable key.
    pub async fn load_files(&self) -> Result<(), KeyFileUnusable> {
        for cache in &self.key_caches {
            if let KeySource::File(path) = cache.source() {
                cache.load().await.map_err(|why| KeyFileUnusable {
                    path: path.display().to_string(),
                    why: why.to_string(),
                })?;
            }
        }
        Ok(())
    }

    /// Fetches all key sets that are due, concurrently. [`Self::keep_fresh`] does this
    /// periodically. Tests call this method after they have advanced their clock.
    pub async fn refresh_due(&self) {
        join(self.key_caches.iter().map(IssuerKeys::refresh_if_due)).await;
    }

    /// Keeps all keys fresh; never returns. Run this as a supervised task, and drop the future to
    /// stop the task.
    pub async fn keep_fresh(&self) {
        join(self.key_caches.iter().map(IssuerKeys::keep_fresh)).await;
    }

    /// Returns which kinds of callers can be authenticated now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut readiness = Readiness {
            users: false,
            services: self.knows_services_by_certificate(),
            unavailable: Vec::new(),
        };
        for (entry, index) in &self.entries {
            if self.key_caches[*index].is_trusted() {
                readiness.users |= entry.caller == CallerKind::User;
                readiness.services |= entry.caller == CallerKind::Service;
            } else if !readiness.unavailable.contains(&entry.issuer) {
                readiness.unavailable.push(entry.issuer.clone());
            }
        }
        readiness
    }

    fn knows_services_by_certificate(&self) -> bool {
        let mut kinds = self.certificates.iter().map(|entry| entry.caller);
        kinds.any(|kind| kind == CallerKind::Service)
    }

    /// Returns whether any caller is identified by certificate, in which case TLS must request
    /// client certificates.
    #[must_use]
    pub fn wants_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Returns the caller that a client certificate identifies. TLS must have verified the
    /// certificate.
    #[must_use]
    pub fn certify(&self, der: &[u8]) -> ClientCertificate {
        certificates::certify(&self.certificates, der)
    }

    /// Authenticates a caller by the values of the `authorization` header, or by client certificate
    /// if there are no such values. An invalid value is rejected even if there is a certificate, so
    /// that a caller never acts under an identity other than the one it presented. A cached JWT is
    /// not verified again. A certificate was already evaluated during the TLS handshake
    /// ([`Self::certify`]), so only its expiry is checked here. Returns without waiting if the
    /// credential is cached or its key is known.
    ///
    /// # Errors
    /// [`Rejection`].
    pub async fn authenticate(
        &self,
        authorization: &[&[u8]],
        certified: Option<&ClientCertificate>,
    ) -> Result<Arc<Caller>, Rejection> {
        let value = match authorization {
            [] => return self.caller_of_certificate(certified),
            [value] if value.len() <= MAX_VALUE_BYTES => *value,
            [_] => return Err(Rejection::Invalid("longer than 8 KiB")),
            _ => return Err(Rejection::Invalid("authorization given more than once")),
        };
        let key = sha256(value);
        match self.cached(&key, self.deps.clock.read()) {
            Some(verified) => Ok(verified.caller),
            // Boxed to keep the future small, because this runs only once per credential.
            None => Box::pin(self.verify(key, bearer(value)?)).await,
        }
    }

    /// Returns the caller if the credential is cached as verified. `None` does not mean that the
    /// credential is invalid; call [`Self::authenticate`] then. `known` has the credentials of the
    /// connection, which are found without computing a SHA-256.
    #[must_use]
    pub fn recognize(
        &self,
        authorization: Option<&[u8]>,
        certified: Option<&ClientCertificate>,
        known: &ConnectionCredentials,
        at: ClockReading,
    ) -> Option<Arc<Caller>> {
        let Some(value) = authorization else {
            return certify_at(certified, at.now).ok();
        };
        if value.len() > MAX_VALUE_BYTES {
            return None;
        }
        if let Some(verified) = known.find(value) {
            if self.holds(&verified, at) {
                return Some(verified.caller);
            }
            // The credential has expired or must be verified again, for example with changed keys.
            known.forget(value);
        }
        let verified = self.cached(&sha256(value), at)?;
        known.keep(value, &verified);
        Some(verified.caller)
    }

    fn caller_of_certificate(
        &self,
        certified: Option<&ClientCertificate>,
    ) -> Result<Arc<Caller>, Rejection> {
        certify_at(certified, self.deps.clock.now())
    }

    fn cached(&self, key: &[u8; 32], at: ClockReading) -> Option<CachedCaller> {
        let verified = self.verified.get(key)?;
        self.holds(&verified, at).then_some(verified)
    }

    /// Returns whether a credential that was verified before is still valid: it has not expired, no
    /// key set has changed, and the keys that verified it are still trusted.
    fn holds(&self, verified: &CachedCaller, at: ClockReading) -> bool {
        verified.generation == self.generation()
            && at.now.as_micros() < verified.valid_until_micros
            && self.key_caches[verified.key_cache].is_trusted_at(at.monotonic)
    }

    async fn verify(&self, key: [u8; 32], token: &str) -> Result<Arc<Caller>, Rejection> {
        let jwt = Jwt::parse(token, self.deps.clock.now()).map_err(Rejection::Invalid)?;
        let found = self.find_with_fresh_keys(&jwt).await?;
        let caller = caller(found.entry, &jwt).map_err(Rejection::Invalid)?;
        let verified = CachedCaller {
            caller: Arc::new(caller),
            valid_until_micros: jwt.valid_until_micros,
            generation: found.generation,
            key_cache: found.key_cache,
        };
        // The assertions of workloads are not cached, because a workload presents one only once.
        // Strangers with assertions of a public issuer could otherwise displace the credentials of
        // all other callers from the cache.
        if found.entry.workload.is_none() {
            self.verified.insert(key, verified.clone());
        }
        Ok(verified.caller)
    }

    /// Finds the entry that accepts a JWT, as [`Self::find`] does. If the JWT is rejected but newer
    /// keys might change the result, fetches them and tries again.
    pub(super) async fn find_with_fresh_keys(
        &self,
        jwt: &Jwt<'_>,
    ) -> Result<MatchingEntry<'_>, Rejection> {
        let before = self.generation();
        let found = match self.find(jwt) {
            Err(refused) => {
                let asked = self.refresh(&refused.wanting).await;
                if asked == RefreshOutcome::Newer || self.generation() != before {
                    self.find(jwt)
                } else if asked == RefreshOutcome::Undecided {
                    // The missing key may be in a key set that is still being fetched, so the JWT
                    // can be neither accepted nor rejected (R13).
                    return Err(Rejection::KeysUnavailable);
                } else {
                    Err(refused)
                }
            }
            found => found,
        };
        found.map_err(|refused| refused.rejection)
    }

    /// Finds the first entry that the JWT matches and whose keys verify the signature. If the keys
    /// of a matching entry are unavailable, stops with an error, because that entry might be the
    /// right one.
    fn find(&self, jwt: &Jwt<'_>) -> Result<MatchingEntry<'_>, PendingRejection> {
        // The generation must be read before the keys. If the keys change in between, the cached
        // result then counts as outdated.
        let generation = self.generation();
        let mut cause: Cause = "no entry for its issuer";
        let mut wanting = Vec::new();
        let candidates = self.entries.iter().filter(|(entry, _)| jwt.is_from(entry));
        for (entry, index) in candidates {
            if let Err(why) = jwt.fits(entry) {
                cause = why;
                continue;
            }
            // A JWT for several audiences could be used as a workload's assertion and as the
            // credential of another caller.
            if self.audiences.are_mixed_in(jwt) {
                cause = "names several audiences of this service";
                continue;
            }
            let key_cache = *index;
            match self.key_caches[key_cache].check(jwt.signed(entry)) {
                Some(SignatureCheck::Valid) => {
                    return Ok(MatchingEntry {
                        entry,
                        key_cache,
                        generation,
                    });
                }
                Some(SignatureCheck::Invalid) => {
                    cause = "signature does not verify with the key that it names";
                }
                Some(SignatureCheck::KeyUnknown) => {
                    cause = "key is not in the issuer's set";
                    wanting.push(key_cache);
                }
                None => {
                    wanting.push(key_cache);
                    return Err(PendingRejection {
                        rejection: Rejection::KeysUnavailable,
                        wanting,
                    });
                }
            }
        }
        Err(PendingRejection {
            rejection: Rejection::Invalid(cause),
            wanting,
        })
    }

    /// Fetches newer keys from these sources if the rate limit of each source permits. The fetches
    /// are concurrent, so that a source that hangs does not delay the others.
    async fn refresh(&self, key_caches: &[usize]) -> RefreshOutcome {
        let mut key_caches = key_caches.to_vec();
        key_caches.sort_unstable();
        key_caches.dedup();
        let asking = key_caches
            .iter()
            .map(|index| self.key_caches[*index].refresh_for_unknown());
        let asked = futures_util::future::join_all(asking).await;
        let any = |wanted| asked.contains(&wanted).then_some(wanted);
        any(RefreshOutcome::Newer)
            .or(any(RefreshOutcome::Undecided))
            .unwrap_or(RefreshOutcome::Same)
    }

    fn generation(&self) -> u64 {
        self.deps.generation.load(Ordering::Acquire)
    }
}

/// Returns the caller that a client certificate identifies at `now`.
fn certify_at(
    certified: Option<&ClientCertificate>,
    now: Timestamp,
) -> Result<Arc<Caller>, Rejection> {
    let certified = certified.ok_or(Rejection::Missing)?;
    if certified.expires_at <= now {
        return Err(Rejection::CertificateExpired);
    }
    let caller = certified.caller.clone();
    caller.ok_or(Rejection::CertificateUnlisted)
}

fn caller(entry: &IssuerEntry, jwt: &Jwt<'_>) -> Result<Caller, Cause> {
    let workload = entry.workload.as_ref();
    let workload = workload.map(|issuer| jwt.workload(issuer)).transpose()?;
    Ok(Caller {
        introspects: entry.may_introspect(jwt.subject()),
        workload: workload.map(Arc::new),
        stranger_in: None,
        actor: Actor {
            kind: entry.caller,
            issuer: entry.issuer.clone(),
            subject: jwt.subject().to_owned(),
        },
    })
}

fn sha256(value: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, value).as_ref());
    key
}
