//! Time and randomness that a test decides.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use stacktoken::domain::{
    clock::Clock,
    entropy::{Entropy, EntropyFailed},
    timestamp::Timestamp,
};

/// 2026-11-24T12:00:00Z.
pub const START: i64 = 1_795_521_600;

/// 9999-12-01T00:00:00Z, later than every clock of a machine or of a test. A nearer date would
/// turn a test red on the day that it passes.
pub const FAR: i64 = 253_399_622_400;

/// A clock that stands still until it is told otherwise.
pub struct ManualClock {
    wall: AtomicI64,
    steady: AtomicI64,
    /// The skew that the server permits, and whether another clock is compared.
    permitted: Mutex<Option<(Duration, bool)>>,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicI64::new(START * 1_000_000),
            steady: AtomicI64::new(0),
            permitted: Mutex::default(),
        })
    }

    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.wall.fetch_add(by, Ordering::SeqCst);
        self.steady.fetch_add(by, Ordering::SeqCst);
    }

    /// As if the host's clock were set: what no process of ours would do by itself (R8).
    pub fn turn_back(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.wall.fetch_sub(by, Ordering::SeqCst);
    }

    /// What the server has set.
    pub fn permitted(&self) -> Option<(Duration, bool)> {
        *self.permitted.lock().unwrap()
    }

    /// Microseconds since the epoch.
    pub fn micros(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    /// Whole seconds since the epoch.
    pub fn seconds(&self) -> i64 {
        self.micros() / 1_000_000
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        let steady = self.steady.load(Ordering::SeqCst);
        Duration::from_micros(u64::try_from(steady).unwrap())
    }

    fn permit(&self, max_skew: Duration, compared: bool) {
        *self.permitted.lock().unwrap() = Some((max_skew, compared));
    }
}

/// The same bytes in every run.
pub struct SeededEntropy {
    bytes: Mutex<ChaCha20Rng>,
    panics: AtomicBool,
}

/// What a panic of [`SeededEntropy`] says: a secret, since a panic can hold anything.
pub const PANIC: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self {
            bytes: Mutex::new(ChaCha20Rng::seed_from_u64(seed)),
            panics: AtomicBool::new(false),
        }
    }

    /// Has whoever asks for bytes next panic.
    pub fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyFailed> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "{PANIC}");
        self.bytes.lock().unwrap().fill_bytes(buffer);
        Ok(())
    }
}
