//! The way of log lines to standard error: a bounded queue and a thread of its own. A reader
//! that stalls costs lines, which are counted, and never the time of a call.

use std::{
    io::{self, Write},
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines may wait for the thread that writes them; more are dropped.
const QUEUED_LINES: usize = 4096;
/// How long the end of the process waits for standard output or standard error.
const FLUSH_FOR: Duration = Duration::from_secs(1);

/// Lines that the queue of this process did not take.
static QUEUE: OnceLock<ErrorCounter> = OnceLock::new();
/// The way into the queue of this process.
static LINES: OnceLock<NonBlocking> = OnceLock::new();
/// How often the thread that writes log lines has found the queue empty.
static EMPTIED: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
/// How long a line for standard output waits for the log lines before it.
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// Lines that standard error did not take.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Keeps the thread that writes log lines.
#[must_use = "lines that wait are lost unless `finish` is called"]
pub struct Output(WorkerGuard);

impl Output {
    /// Begins to write lines; the first is where they go.
    pub(super) fn begin() -> (NonBlocking, Self) {
        let (lines, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUED_LINES)
            .lossy(true)
            .thread_name("log")
            .finish(StandardError);
        QUEUE.get_or_init(|| lines.error_counter());
        LINES.get_or_init(|| lines.clone());
        (lines, Self(guard))
    }

    /// Writes what waits, for one second at most.
    pub fn finish(self) {
        // Dropping the guard prints to standard output where the queue is full, which can stall
        // just as well.
        within(move || drop(self.0));
    }
}

/// Returns how many log lines of this process were lost.
#[must_use]
pub fn lines_dropped() -> u64 {
    let queue = QUEUE.get().map_or(0, ErrorCounter::dropped_lines);
    FAILED.load(Ordering::Relaxed) + queue as u64
}

/// Writes a line to standard output after the log lines before it, so that it is the last on a
/// screen that shows both; gives up on a reader that stalls or is gone.
pub fn print(line: String) {
    within(move || {
        drain();
        let _ = writeln!(io::stdout(), "{line}");
    });
}

/// Writes a line to standard error; gives up on a reader that stalls or is gone.
pub fn print_error(line: String) {
    within(move || {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// Waits until the log lines that are queued now are written.
fn drain() {
    let Some(lines) = LINES.get() else { return };
    let (count, changed) = &EMPTIED;
    // Twice: the first time may be the end of a batch from before the call.
    for _ in 0..2 {
        let guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *guard;
        // Without a byte: it wakes the thread and writes nothing.
        let _ = lines.clone().write(&[]);
        let _ = changed.wait_timeout_while(guard, DRAIN_FOR, |now| *now == before);
    }
}

/// Does what may block on a thread of its own, and waits for it for [`FLUSH_FOR`] at most. The
/// end of the process ends the thread.
fn within(work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = mpsc::channel();
    let work = move || {
        work();
        // Nobody waits any more, where it took too long.
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(work).is_ok() {
        let _ = waiting.recv_timeout(FLUSH_FOR);
    }
}

/// Standard error, with the lines counted that it does not take.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match io::stderr().write(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                FAILED.fetch_add(1, Ordering::Relaxed);
                Ok(bytes.len())
            }
            written => written,
        }
    }

    /// Called whenever the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        let (count, changed) = &EMPTIED;
        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        changed.notify_all();
        Ok(())
    }
}
