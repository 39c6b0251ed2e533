//! Tests [`super`] with a store that answers only when the test permits it.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::Semaphore, time::sleep};

use super::*;
use crate::domain::{entropy::OsEntropy, secret::Secret};

const BOUND: Duration = Duration::from_secs(5);

/// A store that counts its changes. A statement reads this count when it begins, and is answered
/// only after the test calls [`Self::answer`].
struct Slow {
    changes: AtomicU64,
    begun: Mutex<Vec<usize>>,
    gate: Semaphore,
    panics: bool,
}

impl Slow {
    fn start() -> (Arc<Self>, Coalescer<Self>) {
        Self::with(false, BOUND)
    }

    fn with(panics: bool, bound: Duration) -> (Arc<Self>, Coalescer<Self>) {
        let slow = Arc::new(Self {
            changes: AtomicU64::new(0),
            begun: Mutex::default(),
            gate: Semaphore::new(0),
            panics,
        });
        (slow.clone(), Coalescer::new(slow, bound))
    }

    /// Returns the number of digests of each statement that has begun.
    fn sizes(&self) -> Vec<usize> {
        lock_list(&self.begun).clone()
    }

    async fn begun(&self, statements: usize) {
        while self.sizes().len() < statements {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn answer(&self, statements: usize) {
        self.gate.add_permits(statements);
    }
}

fn lock_list(list: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadTogether for Slow {
    type Answer = Answer;

    async fn read(&self, digests: &[Digest]) -> Vec<Self::Answer> {
        let seen = self.changes.load(Ordering::SeqCst);
        lock_list(&self.begun).push(digests.len());
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics, "as the test asks");
        let bad = digest(BAD);
        let each = digests.iter().map(|of| {
            let row = (*of.as_bytes(), seen);
            (*of != bad)
                .then_some(row)
                .ok_or("a row that cannot be parsed")
        });
        each.collect()
    }
}

/// The digest, and how many changes the statement saw.
type Answer = Result<([u8; 32], u64), &'static str>;

/// Number of the digest whose row cannot be parsed.
const BAD: u64 = 999;

fn digest(number: u64) -> Digest {
    static ANY: LazyLock<Digest> = LazyLock::new(|| Secret::generate(&OsEntropy).unwrap().digest());
    ANY.with_stack_key(&number.to_string())
}

type Asked = tokio::task::JoinHandle<Option<Answer>>;

#[expect(clippy::disallowed_methods, reason = "ends with its test")]
fn ask(misses: &Coalescer<Slow>, number: u64) -> Asked {
    let misses = misses.clone();
    tokio::spawn(async move { misses.read(digest(number)).await })
}

/// Returns how many changes the answer reflects.
async fn seen(number: u64, asked: Asked) -> u64 {
    let (of, seen) = asked.await.unwrap().unwrap().unwrap();
    assert_eq!(
        of,
        *digest(number).as_bytes(),
        "the answer of another caller"
    );
    seen
}

/// Starts as many statements as may run at the same time, so that later callers must wait.
async fn fill(slow: &Slow, misses: &Coalescer<Slow>) -> Vec<Asked> {
    let begun = slow.sizes().len();
    let mut first = Vec::new();
    for number in 0..AT_ONCE as u64 {
        first.push(ask(misses, number));
        slow.begun(begun + first.len()).await;
    }
    let sizes = slow.sizes();
    assert_eq!(sizes[begun..], [1; AT_ONCE], "each goes at once, and alone");
    first
}

async fn waiting(misses: &Coalescer<Slow>, count: usize) {
    while lock(&misses.queue).waiting.len() < count {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn callers_that_wait_together_share_one_statement_and_each_gets_its_own_answer() {
    let (slow, misses) = Slow::start();
    let first = fill(&slow, &misses).await;
    let later: Vec<_> = (100..120).map(|number| ask(&misses, number)).collect();
    waiting(&misses, 20).await;
    slow.answer(1);
    slow.begun(AT_ONCE + 1).await;
    assert_eq!(slow.sizes()[AT_ONCE], 20);
    slow.answer(AT_ONCE);
    for (number, asked) in (0..).zip(first) {
        assert_eq!(seen(number, asked).await, 0);
    }
    for (number, asked) in (100..).zip(later) {
        assert_eq!(seen(number, asked).await, 0);
    }
    assert_eq!(lock(&misses.queue).running, 0, "all places are free");
}

/// Tests the rule of freshness: a caller that asks after a change must see the change, even if a
/// statement that began before the change is reading the same digest.
#[tokio::test]
async fn nobody_is_answered_from_a_statement_that_began_before_they_asked() {
    let (slow, misses) = Slow::start();
    for change in 1..=20 {
        let before = fill(&slow, &misses).await;
        slow.changes.fetch_add(1, Ordering::SeqCst);
        let same = ask(&misses, 0);
        let other = ask(&misses, 100);
        waiting(&misses, 2).await;
        slow.answer(AT_ONCE + 1);
        assert_eq!(seen(0, same).await, change);
        assert_eq!(seen(100, other).await, change);
        for (number, asked) in (0..).zip(before) {
            assert_eq!(seen(number, asked).await, change - 1);
        }
    }
}

#[tokio::test]
async fn a_caller_that_fails_or_gives_up_takes_no_answer_from_the_others() {
    let (slow, misses) = Slow::start();
    let first = fill(&slow, &misses).await;
    let (gone, bad, good) = (ask(&misses, 1), ask(&misses, BAD), ask(&misses, 2));
    waiting(&misses, 3).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    // A caller that started a statement gives up too. The waiting callers must still be served
    // after that statement.
    first[0].abort();
    slow.answer(1);
    slow.begun(AT_ONCE + 1).await;
    assert_eq!(slow.sizes()[AT_ONCE], 2, "nothing is read for who is gone");
    slow.answer(AT_ONCE);
    assert!(bad.await.unwrap().unwrap().is_err());
    assert_eq!(seen(2, good).await, 0);
    for asked in first.into_iter().skip(1) {
        assert!(asked.await.unwrap().unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_statement_has_a_largest_size() {
    let (slow, misses) = Slow::start();
    let _first = fill(&slow, &misses).await;
    let later: Vec<_> = (0..MOST as u64 + 3)
        .map(|number| ask(&misses, 100 + number))
        .collect();
    waiting(&misses, MOST + 3).await;
    slow.answer(AT_ONCE + 2);
    for asked in later {
        assert!(asked.await.unwrap().unwrap().is_ok());
    }
    assert_eq!(slow.sizes()[AT_ONCE..], [MOST, 3]);
}

#[tokio::test]
async fn a_statement_that_is_not_answered_or_panics_keeps_no_place() {
    let (slow, misses) = Slow::with(false, Duration::from_millis(20));
    for asked in fill(&slow, &misses).await {
        assert_eq!(asked.await.unwrap(), None);
    }
    slow.answer(1);
    assert!(ask(&misses, 1).await.unwrap().is_some());

    let (slow, misses) = Slow::with(true, BOUND);
    slow.answer(2 * AT_ONCE);
    for number in 0..2 * AT_ONCE as u64 {
        assert_eq!(ask(&misses, number).await.unwrap(), None);
    }
    assert_eq!(slow.sizes().len(), 2 * AT_ONCE);
    assert_eq!(lock(&misses.queue).running, 0);
}
