//! What is wrong with the keys of the issuers: whether each source can be loaded, and whether its
//! keys fit the algorithms of the entries that use it.

use std::collections::BTreeSet;

use super::{authenticator::Authenticator, issuers::IssuerEntry, jwks::KeySet};

/// The keys of one source, and the entries that use them.
#[derive(Debug)]
pub struct InspectedKeys {
    /// Where the keys come from: a path, or a URL without its query.
    pub source: String,
    /// The issuers whose entries use the source, each once.
    pub issuers: Vec<String>,
    /// What the keys are good for, or why they could not be loaded.
    pub loaded: Result<LoadedKeys, String>,
}

/// The keys that were loaded from one source.
#[derive(Debug, Default)]
pub struct LoadedKeys {
    /// The keys that are not used, each with the reason.
    pub skipped: Vec<String>,
    /// The issuers that have no key for any algorithm of their entry, so that every JWT is refused,
    /// with these algorithms.
    pub keyless: Vec<(String, String)>,
    /// The issuers that have no key for some algorithms of their entry, with these algorithms.
    pub partly_keyless: Vec<(String, String)>,
}

impl LoadedKeys {
    fn of<'a>(entries: impl Iterator<Item = &'a IssuerEntry>, set: &KeySet) -> Self {
        let mut keys = Self {
            skipped: set.skipped().to_vec(),
            ..Self::default()
        };
        for entry in entries {
            let has_key = |algorithm| set.fits(algorithm, entry.is_spiffe());
            let algorithms = entry.algorithms.iter().copied();
            let missing: Vec<_> = algorithms
                .filter(|algorithm| !has_key(*algorithm))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let names: Vec<_> = missing.iter().map(|algorithm| algorithm.name()).collect();
            let found = (entry.issuer.clone(), names.join(", "));
            let list = if missing.len() == entry.algorithms.len() {
                &mut keys.keyless
            } else {
                &mut keys.partly_keyless
            };
            if !list.contains(&found) {
                list.push(found);
            }
        }
        keys
    }
}

impl Authenticator {
    /// Loads the keys of every source, concurrently, and returns what they are good for.
    pub async fn inspect_keys(&self) -> Vec<InspectedKeys> {
        let sources = 0..self.key_caches.len();
        futures_util::future::join_all(sources.map(|index| self.inspect_source(index))).await
    }

    async fn inspect_source(&self, index: usize) -> InspectedKeys {
        let cache = &self.key_caches[index];
        let entries = || {
            let of_source = self
                .entries
                .iter()
                .filter(move |(_, source)| *source == index);
            of_source.map(|(entry, _)| entry)
        };
        let loaded = cache.inspect(|set| LoadedKeys::of(entries(), set)).await;
        let issuers: BTreeSet<_> = entries().map(|entry| entry.issuer.clone()).collect();
        InspectedKeys {
            source: cache.source().to_string(),
            issuers: issuers.into_iter().collect(),
            loaded: loaded.map_err(|why| why.to_string()),
        }
    }
}
