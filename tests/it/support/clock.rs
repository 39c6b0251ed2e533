//! A clock and a source of randomness that the test controls.

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
    clock::{Clock, ClockFault, ClockReading},
    entropy::{Entropy, EntropyFailed},
    timestamp::Timestamp,
};

/// 2026-11-24T12:00:00Z.
pub const START: i64 = 1_795_521_600;

/// 9999-12-01T00:00:00Z, which is later than the clock of any machine or test. With a nearer date,
/// a test would start to fail on that date.
pub const FAR: i64 = 253_399_622_400;

/// A clock that advances only when the test advances it.
pub struct ManualClock {
    wall: AtomicI64,
    steady: AtomicI64,
    /// The clock panics at this reading, counted on threads that serve connections; 0 means never.
    panics_after: AtomicI64,
    /// Whether the clock reports a fault.
    is_wrong: AtomicBool,
    /// The arguments of the last call of `Clock::permit`: the maximum skew, and whether the server
    /// compares its clock with that of the database.
    permitted: Mutex<Option<(Duration, bool)>>,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicI64::new(START * 1_000_000),
            steady: AtomicI64::new(0),
            panics_after: AtomicI64::new(0),
            is_wrong: AtomicBool::new(false),
            permitted: Mutex::default(),
        })
    }

    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.wall.fetch_add(by, Ordering::SeqCst);
        self.steady.fetch_add(by, Ordering::SeqCst);
    }

    /// Sets the wall clock back, as an administrator could. The service itself never does so (R8).
    pub fn set_back(&self, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        self.wall.fetch_sub(by, Ordering::SeqCst);
    }

    /// Makes reading number `readings` panic, counted from now on threads that serve connections.
    pub fn panic_after_readings(&self, readings: i64) {
        self.panics_after.store(readings, Ordering::SeqCst);
    }

    /// Sets whether the clock reports a fault from now on.
    pub fn set_wrong(&self, is_wrong: bool) {
        self.is_wrong.store(is_wrong, Ordering::SeqCst);
    }

    /// Returns the skew that the server permits, and whether it compares another clock.
    pub fn permitted(&self) -> Option<(Duration, bool)> {
        *self.permitted.lock().unwrap()
    }

    /// Returns the microseconds since the Unix epoch.
    pub fn micros(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    /// Returns the whole seconds since the Unix epoch.
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

    fn read(&self) -> ClockReading {
        let thread = std::thread::current();
        let serves = thread
            .name()
            .is_some_and(|name| name.starts_with("connections-"));
        if serves && self.panics_after.load(Ordering::SeqCst) > 0 {
            let left = self.panics_after.fetch_sub(1, Ordering::SeqCst);
            assert!(left > 1, "{PANIC}");
        }
        ClockReading {
            now: self.now(),
            monotonic: self.monotonic(),
        }
    }

    fn fault(&self) -> Option<ClockFault> {
        let is_wrong = self.is_wrong.load(Ordering::SeqCst);
        is_wrong.then_some(ClockFault::Differs)
    }

    fn permit(&self, max_skew: Duration, compared: bool) {
        *self.permitted.lock().unwrap() = Some((max_skew, compared));
    }
}

/// A source of randomness that gives the same bytes in every run.
pub struct SeededEntropy {
    bytes: Mutex<ChaCha20Rng>,
    panics: AtomicBool,
}

/// The panic message of [`SeededEntropy`]. It contains a secret, because a panic message can
/// contain anything.
pub const PANIC: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self {
            bytes: Mutex::new(ChaCha20Rng::seed_from_u64(seed)),
            panics: AtomicBool::new(false),
        }
    }

    /// Makes the next request for bytes panic.
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
