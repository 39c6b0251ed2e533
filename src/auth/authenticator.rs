//! Maps credentials to callers. Searches the entries of the issuers file, and caches verified
//! credentials. This module does not know how a JWT is built or when keys are fetched.

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
    certificates::{self, CertificateEntry, Certified},
    fetch::KeyFetcher,
    file::Entries,
    issuers::IssuerEntry,
    join::join,
    jwks::Seal,
    jwks_cache::{Asked, IssuerKeys, Surroundings},
    jwt::{Cause, Jwt},
    source::KeySource,
};
use crate::domain::{
    caller::{Actor, Caller, CallerKind},
    clock::Clock,
    secret,
};

/// Longest `authorization` value that is accepted: 8 KiB.
const MAX_VALUE_BYTES: usize = 8 * 1024;
/// Number of verified credentials that are cached at most.
const REMEMBERED: usize = 10_000;

/// Authenticates callers by JWT or client certificate.
pub struct Authenticator {
    around: Arc<Surroundings>,
    entries: Vec<(IssuerEntry, usize)>,
    stores: Vec<IssuerKeys>,
    certificates: Vec<CertificateEntry>,
    verified: Cache<[u8; 32], Verified>,
}

/// Cached result of the verification of a credential. It is valid until the credential expires, as
/// long as no key set changes and the keys that verified the signature stay trusted.
#[derive(Clone)]
struct Verified {
    caller: Arc<Caller>,
    valid_until_micros: i64,
    generation: u64,
    store: usize,
}

/// The entry that accepts a JWT, and the generation of the key sets against which the JWT was
/// checked.
struct Found<'a> {
    entry: &'a IssuerEntry,
    store: usize,
    generation: u64,
}

/// A rejection with the current keys. Newer keys from the sources in `wanting` might change it.
struct Refused {
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
        let around = Arc::new(Surroundings {
            clock,
            fetcher,
            max_stale,
            generation: AtomicU64::new(0),
        });
        let mut stores = Vec::new();
        let mut known = HashMap::new();
        let certificates = entries.certificates;
        let entries = entries.issuers.into_iter().map(|entry| {
            let store = *known.entry(entry.source.clone()).or_insert_with(|| {
                stores.push(IssuerKeys::new(entry.source.clone(), Arc::clone(&around)));
                stores.len() - 1
            });
            (entry, store)
        });
        Self {
            entries: entries.collect(),
            around,
            stores,
            certificates,
            verified: Cache::new(REMEMBERED),
        }
    }

    /// Loads every `jwks_file`. Call this at startup.
    ///
    /// # Errors
    /// [`KeyFileUnusable`] for the first file that cannot be read or contains no usable key.
    pub async fn load_files(&self) -> Result<(), KeyFileUnusable> {
        for store in &self.stores {
            if let KeySource::File(path) = store.source() {
                store.load().await.map_err(|why| KeyFileUnusable {
                    path: path.display().to_string(),
                    why: why.to_string(),
                })?;
            }
        }
        Ok(())
    }

    /// Fetches all key sets that are due, concurrently. [`Self::keep_fresh`] does the same
    /// periodically. A test calls this after it has moved its clock.
    pub async fn refresh_due(&self) {
        join(self.stores.iter().map(IssuerKeys::refresh_if_due)).await;
    }

    /// Keeps all keys fresh; never returns. Run this as a supervised task, and drop the future to
    /// stop it.
    pub async fn keep_fresh(&self) {
        join(self.stores.iter().map(IssuerKeys::keep_fresh)).await;
    }

    /// Returns which kinds of callers can be authenticated now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut readiness = Readiness {
            users: false,
            services: self.knows_services_by_certificate(),
            unavailable: Vec::new(),
        };
        for (entry, store) in &self.entries {
            if self.stores[*store].is_trusted() {
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
    pub fn certify(&self, der: &[u8]) -> Certified {
        certificates::certify(&self.certificates, der)
    }

    /// Authenticates a caller by the values of the `authorization` header, or by certificate if
    /// there are none. An invalid value is rejected even if there is a certificate. Returns without
    /// waiting if the credential is cached or its key is known.
    ///
    /// # Errors
    /// [`Rejection`].
    pub async fn authenticate(
        &self,
        authorization: &[&[u8]],
        certified: Option<&Certified>,
    ) -> Result<Arc<Caller>, Rejection> {
        let value = match authorization {
            [] => return self.vouched(certified),
            [value] if value.len() <= MAX_VALUE_BYTES => *value,
            [_] => return Err(Rejection::Invalid("longer than 8 KiB")),
            _ => return Err(Rejection::Invalid("authorization given more than once")),
        };
        let key = sha256(value);
        match self.recall(&key) {
            Some(caller) => Ok(caller),
            None => self.verify(key, bearer(value)?).await,
        }
    }

    fn vouched(&self, certified: Option<&Certified>) -> Result<Arc<Caller>, Rejection> {
        let certified = certified.ok_or(Rejection::Missing)?;
        if certified.expires_at <= self.around.clock.now() {
            return Err(Rejection::CertificateExpired);
        }
        let caller = certified.caller.clone();
        caller.ok_or(Rejection::CertificateUnlisted)
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Arc<Caller>> {
        let verified = self.verified.get(key)?;
        let holds = verified.generation == self.generation()
            && self.around.clock.now().as_micros() < verified.valid_until_micros
            && self.stores[verified.store].is_trusted();
        holds.then_some(verified.caller)
    }

    async fn verify(&self, key: [u8; 32], token: &str) -> Result<Arc<Caller>, Rejection> {
        let jwt = Jwt::parse(token, self.around.clock.now()).map_err(Rejection::Invalid)?;
        let before = self.generation();
        let found = match self.find(&jwt) {
            Err(refused) => {
                let asked = self.refresh(&refused.wanting).await;
                if asked == Asked::Newer || self.generation() != before {
                    self.find(&jwt)
                } else if asked == Asked::Undecided {
                    // A fetch that may bring the missing key is still in progress (R13).
                    return Err(Rejection::KeysUnavailable);
                } else {
                    Err(refused)
                }
            }
            found => found,
        };
        let found = found.map_err(|refused| refused.rejection)?;
        let verified = Verified {
            caller: Arc::new(caller(found.entry, &jwt)),
            valid_until_micros: jwt.valid_until_micros,
            generation: found.generation,
            store: found.store,
        };
        self.verified.insert(key, verified.clone());
        Ok(verified.caller)
    }

    /// Finds the first entry that the JWT matches and whose keys verify the signature. If the keys
    /// of a matching entry are unavailable, the search ends, because that entry might have been the
    /// right one.
    fn find(&self, jwt: &Jwt<'_>) -> Result<Found<'_>, Refused> {
        // The generation is read before the keys. If the keys change in between, the cached result
        // is invalid.
        let generation = self.generation();
        let mut cause: Cause = "no entry for its issuer";
        let mut wanting = Vec::new();
        let candidates = self.entries.iter().filter(|(entry, _)| jwt.is_from(entry));
        for (entry, store) in candidates {
            if let Err(why) = jwt.fits(entry) {
                cause = why;
                continue;
            }
            let store = *store;
            match self.stores[store].check(jwt.signed()) {
                Some(Seal::Good) => {
                    return Ok(Found {
                        entry,
                        store,
                        generation,
                    });
                }
                Some(Seal::Bad) => cause = "signature is not by the key that it names",
                Some(Seal::KeyUnknown) => {
                    cause = "key is not in the issuer's set";
                    wanting.push(store);
                }
                None => {
                    wanting.push(store);
                    return Err(Refused {
                        rejection: Rejection::KeysUnavailable,
                        wanting,
                    });
                }
            }
        }
        Err(Refused {
            rejection: Rejection::Invalid(cause),
            wanting,
        })
    }

    /// Fetches newer keys from these sources, if their limits allow a fetch. The fetches are
    /// concurrent, so that a source that hangs does not delay the others.
    async fn refresh(&self, stores: &[usize]) -> Asked {
        let mut stores = stores.to_vec();
        stores.sort_unstable();
        stores.dedup();
        let asking = stores
            .iter()
            .map(|store| self.stores[*store].refresh_for_unknown());
        let asked = futures_util::future::join_all(asking).await;
        let any = |wanted| asked.contains(&wanted).then_some(wanted);
        any(Asked::Newer)
            .or(any(Asked::Undecided))
            .unwrap_or(Asked::Same)
    }

    fn generation(&self) -> u64 {
        self.around.generation.load(Ordering::Acquire)
    }
}

fn caller(entry: &IssuerEntry, jwt: &Jwt<'_>) -> Caller {
    Caller {
        introspects: entry.may_introspect(jwt.subject()),
        actor: Actor {
            kind: entry.caller,
            issuer: entry.issuer.clone(),
            subject: jwt.subject().to_owned(),
        },
    }
}

/// Returns the token that follows the scheme `Bearer`, in upper or lower case (RFC 9110 §11.1), and
/// exactly one space (RFC 6750 §2.1).
fn bearer(value: &[u8]) -> Result<&str, Rejection> {
    if !value.is_ascii() {
        return Err(Rejection::Invalid("not ASCII"));
    }
    let value = str::from_utf8(value).map_err(|_| Rejection::Invalid("not ASCII"))?;
    // Looks for a management token first, whatever the scheme is, because its holder must learn of
    // the mistake.
    let mut words = value.split_ascii_whitespace();
    if words
        .by_ref()
        .take(2)
        .any(|word| word.starts_with(secret::PREFIX))
    {
        return Err(Rejection::TokenNotAcceptedHere);
    }
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err(Rejection::Invalid("not Bearer, one space and a token")),
    }
}

fn sha256(value: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, value).as_ref());
    key
}
