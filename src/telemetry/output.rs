//! Writes log lines to standard error, through a bounded queue and a separate thread. If the reader
//! of standard error stalls, lines are lost and counted, but calls are never delayed.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread,
    time::Duration,
};

/// The capacity of the queue, in lines. Further lines are dropped.
const QUEUED_LINES: usize = 4096;
/// How long to wait for a write to standard output or standard error before giving up.
const FLUSH_FOR: Duration = Duration::from_secs(1);
/// How long a line for standard output waits for log lines that were queued before it.
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// The log queue of this process.
static QUEUE: OnceLock<Lines> = OnceLock::new();
/// The number of lines that were lost because the queue was full or a write failed.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// An entry of the queue.
enum Queued {
    Line(Vec<u8>),
    /// A request to report when everything that was queued before this mark is written.
    Mark(Sender<()>),
}

/// The sending end of the queue. Each `write` must be one line.
#[derive(Clone)]
pub(super) struct Lines(SyncSender<Queued>);

impl Lines {
    /// Creates a queue for `capacity` lines, and returns both its ends.
    fn new(capacity: usize) -> (Self, Receiver<Queued>) {
        let (sender, receiver) = mpsc::sync_channel(capacity);
        (Self(sender), receiver)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Queued::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handle that flushes the queue at shutdown.
#[must_use = "lines that wait are lost unless `finish` is called"]
pub struct Output(Lines);

impl Output {
    /// Starts the thread that writes log lines. Returns the sending end of the queue and the
    /// handle.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn begin() -> io::Result<(Lines, Self)> {
        let (lines, queue) = Lines::new(QUEUED_LINES);
        let log = thread::Builder::new().name("log".to_owned());
        log.spawn(move || write_each(&queue, || io::stderr().lock()))?;
        QUEUE.get_or_init(|| lines.clone());
        Ok((lines.clone(), Self(lines)))
    }

    /// Waits until all queued lines are written, for at most one second.
    pub fn finish(self) {
        within(move || {
            let (mark, written) = mpsc::channel();
            if self.0.0.send(Queued::Mark(mark)).is_ok() {
                let _ = written.recv();
            }
        });
    }
}

/// Returns how many log lines of this process were lost.
#[must_use]
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes a line to standard output after the log lines that are queued now, so that it comes last
/// on a terminal that shows both. Gives up if the reader stalls or is gone.
pub fn print(line: String) {
    within(move || {
        drain();
        let _ = writeln!(io::stdout(), "{line}");
    });
}

/// Writes a line to standard error. Gives up if the reader stalls or is gone.
pub fn print_error(line: String) {
    within(move || {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// Waits until the log lines that are queued now are written. Does not wait if the queue is full,
/// because in that case the reader has stalled.
fn drain() {
    let (mark, written) = mpsc::channel();
    let queue = QUEUE.get();
    if queue.is_some_and(|lines| lines.0.try_send(Queued::Mark(mark)).is_ok()) {
        let _ = written.recv_timeout(DRAIN_FOR);
    }
}

/// Runs blocking work on a separate thread, and waits until it is done, for at most [`FLUSH_FOR`].
/// A thread that takes longer is abandoned, and ends with the process.
fn within(work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = mpsc::channel();
    let work = move || {
        work();
        // The send fails if the work took too long and the receiver has stopped waiting.
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(work).is_ok() {
        let _ = waiting.recv_timeout(FLUSH_FOR);
    }
}

/// Writes lines until all senders are dropped, and counts failed writes.
fn write_each<W: Write>(queue: &Receiver<Queued>, output: impl Fn() -> W) {
    for queued in queue {
        match queued {
            Queued::Line(line) => {
                if output().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The send fails if the flush took too long and the receiver has stopped waiting.
            Queued::Mark(mark) => drop(mark.send(())),
        }
    }
}
