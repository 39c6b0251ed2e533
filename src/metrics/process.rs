//! Process-wide counters of log lines and spans.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::{ConstCounter, Counter},
};

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

/// A counter whose value is kept outside the registry and read at each scrape.
#[derive(Debug)]
pub struct ReadAtScrape {
    /// Name of the counter, without prefix and suffix.
    pub name: &'static str,
    /// Help text, which says what is counted.
    pub help: &'static str,
    /// Function that returns the value of the counter.
    pub read: fn() -> u64,
}

impl Collector for ReadAtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, kind)?)
    }
}
