//! The way of log lines to standard error: a bounded queue and a thread of its own. A reader
//! that stalls costs lines, which are counted one by one, and never the time of a call.

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

/// How many lines may wait for the thread that writes them; more are dropped.
const QUEUED_LINES: usize = 4096;
/// How long the end of the process waits for standard output or standard error.
const FLUSH_FOR: Duration = Duration::from_secs(1);
/// How long a line for standard output waits for the log lines before it.
const DRAIN_FOR: Duration = Duration::from_millis(250);

/// The queue of this process.
static QUEUE: OnceLock<Lines> = OnceLock::new();
/// Lines that found the queue full, or that standard error did not take.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// What waits for the thread that writes.
enum Queued {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Mark(Sender<()>),
}

/// The way into a queue of lines. Each `write` is one line.
#[derive(Clone)]
pub(super) struct Lines(SyncSender<Queued>);

impl Lines {
    /// A queue, and its other end.
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

/// The lines that wait to be written.
#[must_use = "lines that wait are lost unless `finish` is called"]
pub struct Output(Lines);

impl Output {
    /// Begins to write lines; the first is where they go.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn begin() -> io::Result<(Lines, Self)> {
        let (lines, queue) = Lines::new(QUEUED_LINES);
        let log = thread::Builder::new().name("log".to_owned());
        log.spawn(move || write_each(&queue, || io::stderr().lock()))?;
        QUEUE.get_or_init(|| lines.clone());
        Ok((lines.clone(), Self(lines)))
    }

    /// Writes what waits, for one second at most.
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

/// Waits until the log lines that are queued now are written. Where the queue is full their reader
/// stalls, and there is nothing to wait for.
fn drain() {
    let (mark, written) = mpsc::channel();
    let queue = QUEUE.get();
    if queue.is_some_and(|lines| lines.0.try_send(Queued::Mark(mark)).is_ok()) {
        let _ = written.recv_timeout(DRAIN_FOR);
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

/// Writes lines until nobody is left to send one; counts those that are not taken.
fn write_each<W: Write>(queue: &Receiver<Queued>, output: impl Fn() -> W) {
    for queued in queue {
        match queued {
            Queued::Line(line) => {
                if output().write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Whoever waited may have given up.
            Queued::Mark(mark) => drop(mark.send(())),
        }
    }
}
