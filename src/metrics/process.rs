//! Process-wide counters of log lines and spans.

use prometheus_client::metrics::counter::Counter;

/// Process-wide counters, shared by all services that run in the process.
#[derive(Debug)]
pub struct Process {
    /// Spans that did not reach the collector.
    pub spans_dropped: Counter,
    /// Batches of spans that could not be exported.
    pub span_export_failures: Counter,
    /// Log lines that sampling has suppressed.
    pub log_lines_suppressed: Counter,
    /// Function that returns how many log lines were lost.
    pub log_lines_dropped: fn() -> u64,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            spans_dropped: Counter::default(),
            span_export_failures: Counter::default(),
            log_lines_suppressed: Counter::default(),
            log_lines_dropped: || 0,
        }
    }
}
