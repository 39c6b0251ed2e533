//! Sampling of log lines. Of the lines with the same reason, the first one in each minute is
//! written and the others are only counted. So an outage costs one line per cause, not one per
//! refused call.
//!
//! Sampling applies to warnings and errors, both our own and those of libraries, and to `INFO`
//! lines that have a field `reason`.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hasher as _},
    mem,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Level, Metadata, callsite::Identifier, field::Field};

/// Sampling interval.
const MINUTE: Duration = Duration::from_mins(1);
/// Maximum number of reasons that are distinguished per call site, so that a text that is different
/// each time does not evade the sampling.
const REASONS_PER_PLACE: usize = 16;
/// The fields that identify a reason. Other fields, such as `request_id`, differ from line to line.
const TELLING: &[&str] = &[
    "message",
    "reason",
    "cause",
    "error",
    "why",
    "problem",
    "location",
    "source",
    "rpc_method",
    "chore",
];
/// Target of the summary lines. They are not sampled themselves.
const TARGET: &str = "stacktoken::sampling";

/// Number of lines that sampling has suppressed.
pub static SUPPRESSED: LazyLock<Counter> = LazyLock::new(Counter::default);

static SEEN: LazyLock<Mutex<HashMap<Identifier, Place>>> = LazyLock::new(Mutex::default);

/// The lines of one call site in this minute.
struct Place {
    level: Level,
    reasons: HashMap<u64, Reason>,
    /// Number of lines whose reason came after the first [`REASONS_PER_PLACE`] reasons.
    others: u64,
}

/// The line that was written for a reason, and the number of lines suppressed since.
struct Reason {
    line: String,
    suppressed: u64,
}

/// Records a line if it is subject to sampling. Returns whether to write the line.
pub(super) fn admits(event: &Event<'_>) -> bool {
    !is_sampled(event.metadata()) || is_first(event)
}

fn is_sampled(metadata: &Metadata<'_>) -> bool {
    let telling = match *metadata.level() {
        Level::ERROR | Level::WARN => true,
        Level::INFO => metadata.fields().field("reason").is_some(),
        // Whoever enables debug and trace lines wants all of them.
        _ => false,
    };
    telling && metadata.target() != TARGET
}

/// Records a line. Returns whether it is the first line with its reason in this minute.
fn is_first(event: &Event<'_>) -> bool {
    let mut hashed = Hashed(DefaultHasher::new());
    told(event, &mut hashed);
    let key = hashed.0.finish();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let place = seen
        .entry(event.metadata().callsite())
        .or_insert_with(|| Place {
            level: *event.metadata().level(),
            reasons: HashMap::new(),
            others: 0,
        });
    if let Some(reason) = place.reasons.get_mut(&key) {
        reason.suppressed += 1;
    } else if place.reasons.len() >= REASONS_PER_PLACE {
        place.others += 1;
    } else {
        let mut line = String::new();
        told(event, &mut line);
        let suppressed = 0;
        place.reasons.insert(key, Reason { line, suppressed });
        return true;
    }
    SUPPRESSED.inc();
    false
}

/// Ends the current minute, and writes a summary line for each reason of which lines were
/// suppressed.
pub fn end_minute() {
    let seen = {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *seen)
    };
    for place in seen.into_values() {
        let others = Reason {
            line: "other reasons at the same place".to_owned(),
            suppressed: place.others,
        };
        let reasons = place.reasons.into_values().chain([others]);
        for Reason { line, suppressed } in reasons.filter(|reason| reason.suppressed > 0) {
            if place.level == Level::INFO {
                tracing::info!(target: TARGET, suppressed, like = line, "lines suppressed");
            } else {
                tracing::warn!(target: TARGET, suppressed, like = line, "lines suppressed");
            }
        }
    }
}

/// Calls [`end_minute`] every minute; never returns.
pub async fn keep_time() {
    loop {
        tokio::time::sleep(MINUTE).await;
        end_minute();
    }
}

/// Writes the fields of an event that identify its reason to `out`.
fn told(event: &Event<'_>, out: &mut impl fmt::Write) {
    struct Told<'a, W>(&'a mut W);
    impl<W: fmt::Write> tracing::field::Visit for Told<'_, W> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            // Writing to a hasher or a `String` does not fail.
            let _ = match field.name() {
                "message" => write!(self.0, "{value:?} "),
                name if TELLING.contains(&name) => write!(self.0, "{name}={value:?} "),
                _ => Ok(()),
            };
        }
    }
    event.record(&mut Told(out));
}

struct Hashed(DefaultHasher);

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
