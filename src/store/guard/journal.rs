//! Writes the journal of this process. One thread appends the lines of all changes; those that
//! arrive while it writes are written together next, so concurrent changes share one sync. Nobody
//! else waits for the disk of the guard, except a change whose operator chose that.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    line::Line,
    mark::GuardFile,
    place::{Growing, Place},
    seal::Seal,
};
use crate::domain::clock::Clock;

/// How long lines that nobody waits for may be gathered before they are written.
const GATHER_FOR: Duration = Duration::from_millis(200);
/// The pause before lines are written again after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The size at which a file of the journal is full, in bytes.
const FULL: usize = 64 << 20;
/// The maximum number of lines in memory. If the guard cannot be written for long, later lines are
/// lost, and counted.
const MOST: u64 = 200_000;
/// How many times lines are written again once the process ends.
const LAST_RETRIES: u32 = 3;

/// How long the end of the process waits for the last lines.
const CLOSE_FOR: Duration = Duration::from_secs(10);

/// Lines that are written together.
struct Batch {
    lines: Vec<Line>,
    /// Told when the lines are durable.
    flushed: Option<oneshot::Sender<()>>,
}

/// What the journal and its thread share.
struct Shared {
    clock: Arc<dyn Clock>,
    /// The number of lines that are not durable yet.
    waiting: AtomicU64,
    /// When the oldest of them was handed over, in microseconds of the monotonic clock.
    oldest: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    closing: AtomicBool,
    /// The guard and the epoch to which the next lines belong.
    of: Mutex<Option<GuardFile>>,
}

/// The figures of a journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalStats {
    /// The age of the oldest line that is not durable yet.
    pub lag: Duration,
    /// The number of lines written since the start.
    pub written: u64,
    /// The number of lines that were lost since the start.
    pub lost: u64,
}

pub(super) struct Journal {
    /// `None` once the journal is closed.
    sender: Mutex<Option<Sender<Batch>>>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Starts the thread that writes. `replica` is the name of this process in the names of files.
    pub fn start(
        place: Arc<dyn Place>,
        seal: Arc<Seal>,
        replica: String,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            clock,
            waiting: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            of: Mutex::default(),
        });
        let writer = Writer {
            place,
            seal,
            replica,
            shared: shared.clone(),
            file: None,
            number: 0,
        };
        let builder = thread::Builder::new().name("guard".to_owned());
        builder.spawn(move || writer.run(&receiver))?;
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            shared,
        })
    }

    /// Hands lines over to the thread. If `waits`, returns a receiver that is told when they are
    /// durable. Without a message, they will not be.
    pub fn append(&self, lines: Vec<Line>, waits: bool) -> Option<oneshot::Receiver<()>> {
        let (flushed, told) = oneshot::channel();
        let count = lines.len() as u64;
        let before = self.shared.waiting.fetch_add(count, Ordering::AcqRel);
        if before == 0 {
            self.shared.note_oldest();
        }
        let flushed = waits.then_some(flushed);
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = Batch { lines, flushed };
        let sent = before < MOST && sender.as_ref().is_some_and(|to| to.send(batch).is_ok());
        if !sent {
            self.shared.lose(count);
        }
        waits.then_some(told)
    }

    /// Sets to which guard and to which epoch the lines belong that are handed over from now on.
    pub fn belongs_to(&self, of: GuardFile) {
        *self
            .shared
            .of
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(of);
    }

    pub fn stats(&self) -> JournalStats {
        self.shared.stats()
    }

    /// Writes what waits, for at most a few attempts, and ends the thread.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let last = self.append(Vec::new(), true);
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(last) = last {
            let _ = timeout(CLOSE_FOR, last).await;
        }
    }
}

impl Shared {
    fn note_oldest(&self) {
        let now = self.clock.monotonic().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.oldest.store(now, Ordering::Release);
    }

    fn lose(&self, count: u64) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        self.lost.fetch_add(count, Ordering::AcqRel);
    }

    fn stats(&self) -> JournalStats {
        let oldest = Duration::from_micros(self.oldest.load(Ordering::Acquire));
        let lag = match self.waiting.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            _ => self.clock.monotonic().saturating_sub(oldest),
        };
        JournalStats {
            lag,
            written: self.written.load(Ordering::Acquire),
            lost: self.lost.load(Ordering::Acquire),
        }
    }
}

/// The thread that writes.
struct Writer {
    place: Arc<dyn Place>,
    seal: Arc<Seal>,
    replica: String,
    shared: Arc<Shared>,
    /// The file that is open. `None` before the first line, and after a failure, because its last
    /// line may be incomplete.
    file: Option<OpenFile>,
    /// The number of the last file.
    number: u32,
}

struct OpenFile {
    of: Option<GuardFile>,
    file: Box<dyn Growing>,
    code: [u8; 16],
    size: usize,
}

/// Returns the name of a file of the journal.
fn name_of(replica: &str, number: u32) -> String {
    format!("{JOURNAL}{replica}-{number:06}.log")
}

/// How the names of the journal's files begin.
pub(super) const JOURNAL: &str = "journal-";

impl Writer {
    fn run(mut self, batches: &Receiver<Batch>) {
        while let Ok(first) = batches.recv() {
            let gathered = self.gather(first, batches);
            self.flush(gathered);
        }
    }

    /// Collects what has arrived, and waits a moment for more unless somebody waits.
    fn gather(&self, first: Batch, batches: &Receiver<Batch>) -> Vec<Batch> {
        let until = self.shared.clock.monotonic() + GATHER_FOR;
        let mut awaited = first.flushed.is_some();
        let mut all = vec![first];
        while !awaited {
            let rest = until.saturating_sub(self.shared.clock.monotonic());
            match batches.recv_timeout(rest) {
                Ok(batch) => {
                    awaited = batch.flushed.is_some();
                    all.push(batch);
                }
                Err(_) => break,
            }
        }
        all.extend(batches.try_iter());
        all
    }

    /// Writes lines until they are durable.
    fn flush(&mut self, batches: Vec<Batch>) {
        let count = batches.iter().map(|batch| batch.lines.len() as u64).sum();
        let mut failures = 0;
        while let Err(error) = self.write(&batches) {
            self.file = None;
            if failures == 0 {
                tracing::error!(%error, "the restore guard cannot be written: trying again");
            }
            failures += 1;
            if self.shared.closing.load(Ordering::Acquire) && failures > LAST_RETRIES {
                return self.shared.lose(count);
            }
            thread::sleep(RETRY_AFTER);
        }
        if failures > 0 {
            tracing::info!("the restore guard is written again");
        }
        self.shared.waiting.fetch_sub(count, Ordering::AcqRel);
        self.shared.written.fetch_add(count, Ordering::AcqRel);
        // What arrived meanwhile is at most as old as this moment minus the time of the write.
        self.shared.note_oldest();
        for batch in batches {
            if let Some(flushed) = batch.flushed {
                let _ = flushed.send(());
            }
        }
    }

    fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        let mut lines = batches.iter().flat_map(|batch| &batch.lines).peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        let of = *self
            .shared
            .of
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut open = match self.file.take() {
            Some(open) if open.size < FULL && open.of == of => open,
            _ => self.begin(of)?,
        };
        let mut text = String::new();
        let mut chain = self.seal.resume(open.code);
        if let (0, Some(of)) = (open.size, open.of) {
            chain.write(&mut text, &Line::Of(of));
        }
        for line in lines {
            chain.write(&mut text, line);
        }
        open.code = chain.last();
        open.size += text.len();
        open.file.append(text.as_bytes())?;
        self.file = Some(open);
        Ok(())
    }

    fn begin(&mut self, of: Option<GuardFile>) -> io::Result<OpenFile> {
        self.number += 1;
        let name = name_of(&self.replica, self.number);
        Ok(OpenFile {
            of,
            file: self.place.begin(&name)?,
            code: self.seal.chain(&name).last(),
            size: 0,
        })
    }
}
