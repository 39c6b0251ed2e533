//! Samples log lines. Of the lines with the same reason, the first one in each minute is written
//! and the others are only counted. So while the store is unavailable, there is one line per cause,
//! not one per refused call.
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

/// The sampling interval.
const MINUTE: Duration = Duration::from_mins(1);
/// Maximum number of reasons that are distinguished per call site. Without it, a message that is
/// different each time would evade the sampling.
const REASONS_PER_SITE: usize = 16;
/// The fields that identify a reason. Other fields, such as `request_id`, differ from line to line.
const REASON_FIELDS: &[&str] = &[
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
/// The target of the summary lines, which are not sampled.
const TARGET: &str = "stacktoken::sampling";

/// The number of lines that sampling has suppressed.
pub static SUPPRESSED: LazyLock<Counter> = LazyLock::new(Counter::default);

static SEEN: LazyLock<Mutex<HashMap<Identifier, CallSite>>> = LazyLock::new(Mutex::default);

/// The lines of one call site in the current minute.
struct CallSite {
    level: Level,
    reasons: HashMap<u64, Reason>,
    /// The number of lines with other reasons than the first [`REASONS_PER_SITE`] ones.
    others: u64,
}

/// The line that was written for a reason, and the number of lines that were suppressed since then.
struct Reason {
    line: String,
    suppressed: u64,
}

/// Counts a line if it is subject to sampling. Returns whether to write the line.
pub(super) fn admits(event: &Event<'_>) -> bool {
    !is_sampled(event.metadata()) || is_first(event)
}

fn is_sampled(metadata: &Metadata<'_>) -> bool {
    let has_reason = match *metadata.level() {
        Level::ERROR | Level::WARN => true,
        Level::INFO => metadata.fields().field("reason").is_some(),
        // Debug and trace lines are never suppressed, because a user who enables them wants all of
        // them.
        _ => false,
    };
    has_reason && metadata.target() != TARGET
}

/// Counts a line. Returns whether it is the first line with its reason in this minute.
fn is_first(event: &Event<'_>) -> bool {
    let mut hasher = HashWriter(DefaultHasher::new());
    write_reason(event, &mut hasher);
    let key = hasher.0.finish();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let site = seen
        .entry(event.metadata().callsite())
        .or_insert_with(|| CallSite {
            level: *event.metadata().level(),
            reasons: HashMap::new(),
            others: 0,
        });
    if let Some(reason) = site.reasons.get_mut(&key) {
        reason.suppressed += 1;
    } else if site.reasons.len() >= REASONS_PER_SITE {
        site.others += 1;
    } else {
        let mut line = String::new();
        write_reason(event, &mut line);
        let suppressed = 0;
        site.reasons.insert(key, Reason { line, suppressed });
        return true;
    }
    SUPPRESSED.inc();
    false
}

/// Ends the current minute, and writes a summary line for each reason whose lines were suppressed.
pub fn end_minute() {
    let seen = {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *seen)
    };
    for site in seen.into_values() {
        let others = Reason {
            line: "other reasons at the same place".to_owned(),
            suppressed: site.others,
        };
        let reasons = site.reasons.into_values().chain([others]);
        for Reason { line, suppressed } in reasons.filter(|reason| reason.suppressed > 0) {
            if site.level == Level::INFO {
                tracing::info!(target: TARGET, suppressed, like = line, "lines suppressed");
            } else {
                tracing::warn!(target: TARGET, suppressed, like = line, "lines suppressed");
            }
        }
    }
}

/// Calls [`end_minute`] every minute. Never returns.
pub async fn end_minutes() {
    loop {
        tokio::time::sleep(MINUTE).await;
        end_minute();
    }
}

/// Writes the fields of an event that identify its reason to `out`.
fn write_reason(event: &Event<'_>, out: &mut impl fmt::Write) {
    struct ReasonVisitor<'a, W>(&'a mut W);
    impl<W: fmt::Write> tracing::field::Visit for ReasonVisitor<'_, W> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            // Writing to a hasher or a `String` cannot fail.
            let _ = match field.name() {
                "message" => write!(self.0, "{value:?} "),
                name if REASON_FIELDS.contains(&name) => write!(self.0, "{name}={value:?} "),
                _ => Ok(()),
            };
        }
    }
    event.record(&mut ReasonVisitor(out));
}

struct HashWriter(DefaultHasher);

impl fmt::Write for HashWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
