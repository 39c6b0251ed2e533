//! The only place that asks for randomness. A test gives its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// The generator did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed: {0}")]
pub struct EntropyFailed(#[from] getrandom::Error);

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer.
    ///
    /// # Errors
    /// [`EntropyFailed`] where the source does not answer; nothing may be made of the buffer then.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed>;
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the source that everything else asks"
    )]
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        Ok(getrandom::fill(buffer)?)
    }
}

/// Numbers that differ, for ids that come by the thousand and that anybody may guess: drawn
/// from another source once, and never for a secret.
#[derive(Debug)]
pub struct Spread(AtomicU64);

impl Spread {
    /// From wherever this source says; from a fixed point, should it not answer.
    #[must_use]
    pub fn seeded(source: &dyn Entropy) -> Self {
        let mut seed = [0; 8];
        let _ = source.fill(&mut seed);
        Self(AtomicU64::new(u64::from_ne_bytes(seed)))
    }

    /// The next number: `SplitMix64`.
    pub fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut drawn = self.0.fetch_add(STEP, Ordering::Relaxed);
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ (drawn >> 31)
    }
}

impl Entropy for Spread {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        for chunk in buffer.chunks_mut(8) {
            let drawn = self.draw().to_ne_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_spread_without_a_repetition() {
        let spread = Spread::seeded(&OsEntropy);
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let mut buffer = [0; 10];
            spread.fill(&mut buffer).unwrap();
            assert!(seen.insert(buffer));
        }
    }
}
