//! Counts how much of a shared limit each caller or peer address uses. Used for call permits and
//! Watch streams per caller, and for streams without a credential per address.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of units that each key holds.
pub(super) struct KeyedCounts<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One unit that a key holds. Dropping it releases the unit.
pub(super) struct KeyedPermit<K: Hash + Eq> {
    key: K,
    counts: KeyedCounts<K>,
}

impl<K> Clone for KeyedCounts<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for KeyedCounts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> KeyedCounts<K> {
    /// Takes one more unit for `key`. Returns `None` if `key` already holds `at_most` units.
    pub fn take(&self, key: &K, at_most: usize) -> Option<KeyedPermit<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let so_far = taken.get(key).copied().unwrap_or_default();
        if so_far >= at_most {
            return None;
        }
        taken.insert(key.clone(), so_far + 1);
        Some(KeyedPermit {
            key: key.clone(),
            counts: self.clone(),
        })
    }
}

impl<K: Hash + Eq> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut taken = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}
