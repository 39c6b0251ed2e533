//! Writes logs that are structured, filtered, and without secrets (R9). Libraries are limited to
//! the level `warn`, whatever the filter says, because some of them print headers and frames below
//! that level. A line that is written during a traced call contains the trace id.

use std::{io::IsTerminal as _, panic};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, FilterFn},
    fmt::{
        self, FmtContext, FormatEvent, FormatFields,
        format::{JsonFields, Writer},
    },
    layer::{Filter, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::{
    context,
    output::Output,
    sampling,
    traces::{self, Exporting},
};
use crate::config::{Log, LogFormat};

/// The filter that applies if none is configured.
const DEFAULT_FILTER: &str = "info";

/// Starts logging to standard error, and passes spans to `spans`. The log filter does not apply to
/// spans. Lines are lost at shutdown unless [`Output::finish`] is called.
///
/// # Errors
/// Returns an error if the filter cannot be parsed, logging was already started, or the writer
/// thread cannot be started.
pub fn begin(
    settings: &Log,
    fallback: Option<String>,
    spans: Option<&Exporting>,
) -> anyhow::Result<Output> {
    let filter = settings
        .log
        .clone()
        .or(fallback)
        .unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let filter = filter_of(&filter)?;
    let (lines, output) = Output::begin()?;
    // The layer would print its own errors directly to standard error, without the queue. It would
    // also report lines that `WithTraceId` deliberately does not format, which are no errors.
    let layer = fmt::layer()
        .with_writer(move || lines.clone())
        .log_internal_errors(false);
    let layer = match settings.log_format {
        LogFormat::Json => layer
            .fmt_fields(JsonFields::new())
            .event_format(WithTraceId {
                inner: fmt::format().json(),
                json: true,
            })
            .boxed(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            layer
                .with_ansi(colours)
                .event_format(WithTraceId {
                    inner: fmt::format().with_ansi(colours),
                    json: false,
                })
                .boxed()
        }
    };
    tracing_subscriber::registry()
        .with(spans.map(Exporting::layer))
        .with(layer.with_filter(filter))
        .try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(output)
}

/// Builds the filter of log lines, with a hint of the most verbose level that passes. Without this
/// hint, libraries would create a span for every frame of a connection, only for it to be
/// discarded.
fn filter_of<S: Subscriber>(words: &str) -> anyhow::Result<impl Filter<S> + use<S>> {
    let theirs = EnvFilter::try_new(words).map_err(|wrong| {
        anyhow::anyhow!(
            "--log: not a filter such as info or stacktoken=debug: {wrong} (also set by \
             STACKTOKEN_LOG and RUST_LOG)"
        )
    })?;
    let mut ours = FilterFn::new(is_shown);
    if let Some(finest) = theirs.max_level_hint() {
        ours = ours.with_max_level_hint(finest);
    }
    Ok(theirs.and(ours))
}

/// A line format that appends the trace id, if there is one. It also drops the lines that sampling
/// suppresses. A filter that rejects single events cannot drop them, because it would conflict with
/// the filter state of `tracing_subscriber`.
struct WithTraceId<F> {
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithTraceId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        of: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if !sampling::admits(event) {
            return Err(std::fmt::Error);
        }
        let Some(trace_id) = context::trace_id() else {
            return self.inner.format_event(of, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(of, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        if self.json {
            let open = line.strip_suffix('}').unwrap_or(line);
            writeln!(writer, r#"{open},"trace_id":"{trace_id}"}}"#)
        } else {
            writeln!(writer, "{line} trace_id={trace_id}")
        }
    }
}

fn is_shown(metadata: &Metadata<'_>) -> bool {
    let loud = *metadata.level() <= Level::WARN;
    !traces::is_ours(metadata) && (loud || metadata.target().starts_with("stacktoken"))
}

/// Logs the location of a panic, but not its message, which can contain secrets.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, "panic: internal error");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{Registry, filter::LevelFilter};

    use super::*;

    /// Captured log output.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the lines").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_what_it_says() {
        let written = Written::default();
        let lines = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .finish();
        let before = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let ended = tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| assert!(std::hint::black_box(false), "stk1_ in a panic"))
        });
        panic::set_hook(before);
        assert!(ended.is_err());
        let written = written.0.lock().expect("the lines");
        let written = String::from_utf8_lossy(&written);
        assert!(written.contains("logs.rs"), "{written}");
        assert!(!written.contains("stk1_"), "{written}");
    }

    #[test]
    fn the_finest_level_that_is_written_is_known_beforehand() {
        for (words, finest) in [
            ("info", LevelFilter::INFO),
            ("warn,stacktoken=debug", LevelFilter::DEBUG),
            ("error", LevelFilter::ERROR),
        ] {
            let filter = filter_of::<Registry>(words).unwrap();
            assert_eq!(filter.max_level_hint(), Some(finest), "{words}");
        }
    }
}
