//! Fixtures for the `auth` tests: a manual clock, and a fetcher that serves configured documents
//! and counts how often it is called.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use stacktoken::{
    auth::{Authenticator, Fetch, FetchError, KeyFetcher, KeySource, Rejection, parse},
    domain::{caller::Caller, clock::Clock, timestamp::Timestamp},
};
use tokio::sync::Semaphore;

/// 2027-01-15T08:00:00Z, in seconds since the epoch.
pub const NOW: i64 = 1_800_000_000;
pub const MAX_STALE: Duration = Duration::from_hours(24);

pub struct FakeClock {
    micros: AtomicI64,
    monotonic: AtomicU64,
}

impl FakeClock {
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_micros()).unwrap();
        self.micros.fetch_add(by.cast_signed(), Ordering::SeqCst);
        self.monotonic.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(Ordering::SeqCst)).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.load(Ordering::SeqCst))
    }
}

/// Awaits an event that is expected soon. If the event does not happen, the test fails instead of
/// hanging.
pub async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), event)
        .await
        .expect("the event did not happen in time")
}

/// A fetcher that serves documents by the name of their source. Any other source is unreachable.
pub struct FakeFetcher {
    documents: Mutex<HashMap<String, String>>,
    fetches: AtomicUsize,
    gate: Arc<Semaphore>,
}

impl FakeFetcher {
    pub fn serve(&self, source: &str, document: impl Into<String>) {
        let mut documents = self.documents.lock().unwrap();
        documents.insert(source.to_owned(), document.into());
    }

    pub fn fail(&self, source: &str) {
        self.documents.lock().unwrap().remove(source);
    }

    /// Makes every fetch of this source hang.
    pub fn stall(&self, source: &str) {
        self.serve(source, STALL);
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Makes every fetch wait until [`Self::open`] is called.
    pub async fn close(&self) {
        let all = u32::try_from(GATE).unwrap();
        self.gate.acquire_many(all).await.unwrap().forget();
    }

    pub fn open(&self) {
        self.gate.add_permits(GATE);
    }
}

const GATE: usize = 1000;
const STALL: &str = "(stall)";

impl KeyFetcher for FakeFetcher {
    fn fetch(&self, source: &KeySource) -> Fetch {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let document = self
            .documents
            .lock()
            .unwrap()
            .get(&source.to_string())
            .cloned();
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let _open = gate.acquire().await.unwrap();
            match document {
                Some(document) if document == STALL => std::future::pending().await,
                Some(document) => Ok(document.into_bytes()),
                None => Err(FetchError::Unreachable("connection refused".to_owned())),
            }
        })
    }
}

/// An authenticator with a fake clock and a fake fetcher.
pub struct Bench {
    pub auth: Authenticator,
    pub clock: Arc<FakeClock>,
    pub fetcher: Arc<FakeFetcher>,
}

impl Bench {
    pub fn new(issuers: &str) -> Self {
        let clock = Arc::new(FakeClock {
            micros: AtomicI64::new(NOW * 1_000_000),
            monotonic: AtomicU64::new(0),
        });
        let fetcher = Arc::new(FakeFetcher {
            documents: Mutex::default(),
            fetches: AtomicUsize::new(0),
            gate: Arc::new(Semaphore::new(GATE)),
        });
        let entries = parse(issuers, Path::new("/etc/stacktoken")).unwrap();
        let auth = Authenticator::new(entries, fetcher.clone(), clock.clone(), MAX_STALE);
        Self {
            auth,
            clock,
            fetcher,
        }
    }

    pub async fn ask(&self, value: &str) -> Result<Arc<Caller>, Rejection> {
        self.auth.authenticate(&[value.as_bytes()], None).await
    }
}
