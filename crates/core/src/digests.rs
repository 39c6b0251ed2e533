//! A set of digests that is optimized for few elements, because a token usually has one or two
//! secrets. A federated token can have hundreds of sessions, and the set of a stack contains the
//! digests of all its tokens.

use std::collections::HashSet;

use crate::secret::Digest;

/// Up to this many digests, a linear search is faster than hashing, and a list takes less memory.
const FEW: usize = 16;

/// A set of digests.
pub(crate) enum Digests {
    /// At most [`FEW`] digests.
    Few(Vec<Digest>),
    /// More than [`FEW`] digests.
    Many(HashSet<Digest>),
}

impl Default for Digests {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Digests {
    /// Adds a digest, unless the set already contains it.
    pub fn insert(&mut self, digest: Digest) {
        match self {
            Self::Few(few) if few.contains(&digest) => {}
            Self::Few(few) if few.len() < FEW => few.push(digest),
            Self::Few(few) => {
                let all = few.drain(..).chain([digest]).collect();
                *self = Self::Many(all);
            }
            Self::Many(many) => {
                many.insert(digest);
            }
        }
    }

    /// Calls `each` for every digest.
    pub fn for_each(self, mut each: impl FnMut(&Digest)) {
        match self {
            Self::Few(few) => few.iter().for_each(&mut each),
            Self::Many(many) => many.iter().for_each(&mut each),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::secret::recognize;

    #[test]
    fn each_digest_is_in_the_set_once_whether_few_or_many() {
        let secret = recognize("stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO").unwrap();
        for count in [0_u32, 1, 16, 17, 500] {
            let mut digests = Digests::default();
            for number in (0..count).chain(0..count) {
                digests.insert(secret.with_stack_key(&number.to_string()));
            }
            assert_eq!(matches!(digests, Digests::Many(_)), count > 16);
            let (mut found, mut calls) = (HashSet::new(), 0);
            digests.for_each(|digest| {
                found.insert(*digest);
                calls += 1;
            });
            assert_eq!((found.len(), calls), (count as usize, count));
        }
    }
}
