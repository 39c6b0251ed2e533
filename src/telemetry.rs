//! Logs: structured, filtered, and never with a secret in them (R9). Libraries are held to
//! `warn` whatever the filter says, since some print headers and frames below that.

use std::{io::IsTerminal as _, panic};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::FilterExt as _, filter::FilterFn, fmt,
    layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// What is logged where nobody says.
const DEFAULT_FILTER: &str = "info";

/// Begins to log to standard error.
///
/// # Errors
/// A filter that does not parse, or a process that logs already.
pub fn begin(settings: &Log, fallback: Option<String>) -> anyhow::Result<()> {
    let filter = settings
        .log
        .clone()
        .or(fallback)
        .unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|wrong| anyhow::anyhow!("--log: not a tracing filter: {wrong}"))?;
    let layer = match settings.log_format {
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            fmt::layer()
                .with_ansi(colours)
                .with_writer(std::io::stderr)
                .boxed()
        }
    };
    let filter = filter.and(FilterFn::new(ours_or_harmless));
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn ours_or_harmless(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("stacktoken") || *metadata.level() <= Level::WARN
}

/// Where, but not what: the words of a panic can hold whatever was at hand.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, "panic: a fault of this service");
}
