//! Output of log lines to standard error through a bounded queue and a thread of its own. A reader
//! that stalls costs lines, which are counted, never the latency of a call.

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

/// Capacity of the queue, in lines; further lines are dropped.
const QUEUED_LINES: usize = 4096;
/// How long to wait for standard output or standard error before giving up.
const FLUSH_FOR: Duration = Duration::from_secs(1);
/// How long a line for standard output waits for the log lines before it.
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// The queue of this process.
static QUEUE: OnceLock<Lines> = OnceLock::new();
/// Number of lines lost to a full queue or a failed write.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Entry of the queue.
enum Queued {
    Line(Vec<u8>),
    /// Acknowledged when everything before it is written.
    Mark(Sender<()>),
}

/// Sending end of the queue. Each `write` is one line.
#[derive(Clone)]
pub(super) struct Lines(SyncSender<Queued>);

impl Lines {
    /// Creates a queue and returns both ends.
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

/// Handle that flushes the queue at shutdown.
#[must_use = "lines that wait are lost unless `finish` is called"]
pub struct Output(Lines);

impl Output {
    /// Starts the thread that writes lines. Returns the sending end and the handle.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn begin() -> io::Result<(Lines, Self)> {
        let (lines, queue) = Lines::new(QUEUED_LINES);
        let log = thread::Builder::new().name("log".to_owned());
        log.spawn(move || write_each(&queue, || io::stderr().lock()))?;
        QUEUE.get_or_init(|| lines.clone());
        Ok((lines.clone(), Self(lines)))
    }

    /// Flushes the queue, for one second at most.
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

/// Writes a line to standard output after the log lines before it, so that it comes last on a
/// terminal that shows both; gives up if the reader stalls or is gone.
pub fn print(line: String) {
    within(move || {
        drain();
        let _ = writeln!(io::stdout(), "{line}");
    });
}

/// Writes a line to standard error; gives up if the reader stalls or is gone.
pub fn print_error(line: String) {
    within(move || {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// Waits until the log lines that are queued now are written. If the queue is full, the reader has
/// stalled, and waiting is pointless.
fn drain() {
    let (mark, written) = mpsc::channel();
    let queue = QUEUE.get();
    if queue.is_some_and(|lines| lines.0.try_send(Queued::Mark(mark)).is_ok()) {
        let _ = written.recv_timeout(DRAIN_FOR);
    }
}

/// Runs blocking work on its own thread, and waits for it for at most [`FLUSH_FOR`]. A thread that
/// takes longer ends with the process.
fn within(work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = mpsc::channel();
    let work = move || {
        work();
        // Fails if the caller has stopped waiting.
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(work).is_ok() {
        let _ = waiting.recv_timeout(FLUSH_FOR);
    }
}

/// Writes lines until all senders are dropped; counts failed writes.
fn write_each<W: Write>(queue: &Receiver<Queued>, output: impl Fn() -> W) {
    for queued in queue {
        match queued {
            Queued::Line(line) => {
                if output().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Fails if the caller has stopped waiting.
            Queued::Mark(mark) => drop(mark.send(())),
        }
    }
}
