//! Caches the verified credentials of one connection. A connection presents the same few
//! credentials at every call, and comparing them is cheaper than a SHA-256 per call. An entry alone
//! does not authenticate a caller: its expiry and its keys are checked at every call.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use crate::domain::caller::Caller;

/// Maximum number of credentials that are kept per connection. A service presents one, but a proxy
/// can forward several callers on one connection.
const KEPT: usize = 4;

/// The cached result of verifying a credential. It is valid until the credential expires, as long
/// as no key set changes and the keys that verified the signature stay trusted.
#[derive(Clone)]
pub(super) struct CachedCaller {
    pub caller: Arc<Caller>,
    pub valid_until_micros: i64,
    pub generation: u64,
    /// Index of the key cache whose key verified the signature.
    pub key_cache: usize,
}

/// Verified credentials of one connection. They are wiped from memory when the connection ends.
#[derive(Default)]
pub struct ConnectionCredentials(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    credentials: Vec<Presented>,
    /// Index of the entry to replace next.
    next: usize,
}

struct Presented {
    value: Zeroizing<Vec<u8>>,
    verified: CachedCaller,
}

impl ConnectionCredentials {
    /// Returns the cached verification result of a credential, if there is one. The comparison is
    /// constant-time for values of equal length.
    pub(super) fn find(&self, value: &[u8]) -> Option<CachedCaller> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept
            .credentials
            .iter()
            .find(|known| verify_slices_are_equal(&known.value, value).is_ok());
        known.map(|known| known.verified.clone())
    }

    /// Adds a verified credential. If the cache is full, replaces the oldest one.
    pub(super) fn keep(&self, value: &[u8], verified: &CachedCaller) {
        let presented = Presented {
            value: Zeroizing::new(value.to_vec()),
            verified: verified.clone(),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { credentials, next } = &mut *kept;
        if credentials.len() < KEPT {
            credentials.push(presented);
        } else {
            credentials[*next] = presented;
            *next = (*next + 1) % KEPT;
        }
    }

    /// Removes a credential, for example because its result is no longer valid.
    pub(super) fn forget(&self, value: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.credentials
            .retain(|known| verify_slices_are_equal(&known.value, value).is_err());
        kept.next = 0;
    }
}

impl fmt::Debug for ConnectionCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionCredentials")
    }
}
