//! Access to randomness. No other module reads random bytes. Tests pass their own source.

use std::sync::atomic::{AtomicU64, Ordering};

/// The error of a source that could not provide random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random generator failed: {0}")]
pub struct EntropyFailed(#[from] getrandom::Error);

/// A source of unpredictable bytes.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer with random bytes.
    ///
    /// # Errors
    /// Returns [`EntropyFailed`] if the source fails. In that case, the content of the buffer must
    /// not be used.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed>;
}

/// The operating system's random number generator.
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

/// A generator of distinct numbers, for ids that are needed in large numbers and may be guessable.
/// It is seeded once from another source. It must never be used for a secret.
#[derive(Debug)]
pub struct SplitMix64(AtomicU64);

impl SplitMix64 {
    /// Creates a generator with a seed from this source, or with a constant seed if the source
    /// fails.
    #[must_use]
    pub fn seeded(source: &dyn Entropy) -> Self {
        let mut seed = [0; 8];
        let _ = source.fill(&mut seed);
        Self(AtomicU64::new(u64::from_ne_bytes(seed)))
    }

    /// Returns the next number of the `SplitMix64` sequence.
    pub fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut drawn = self.0.fetch_add(STEP, Ordering::Relaxed);
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ (drawn >> 31)
    }
}

impl Entropy for SplitMix64 {
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
        let spread = SplitMix64::seeded(&OsEntropy);
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let mut buffer = [0; 10];
            spread.fill(&mut buffer).unwrap();
            assert!(seen.insert(buffer));
        }
    }
}
