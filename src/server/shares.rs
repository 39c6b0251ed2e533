//! Counts how much of a shared limit each caller or peer address holds: call permits and Watch
//! streams per caller, and streams that need no credential per address.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Number of units that each key holds.
pub(super) struct Shares<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One unit that a key holds. Dropping it releases the unit.
pub(super) struct Taken<K: Hash + Eq> {
    by: K,
    shares: Shares<K>,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// Takes one more unit for the key `by`; `None` if the key already holds `at_most` units.
    pub fn take(&self, by: &K, at_most: usize) -> Option<Taken<K>> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let so_far = taken.get(by).copied().unwrap_or_default();
        if so_far >= at_most {
            return None;
        }
        taken.insert(by.clone(), so_far + 1);
        Some(Taken {
            by: by.clone(),
            shares: self.clone(),
        })
    }
}

impl<K: Hash + Eq> Drop for Taken<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.by) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.by);
            }
        }
    }
}
