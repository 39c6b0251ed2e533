//! The only place that asks for randomness. A test gives its own.

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
