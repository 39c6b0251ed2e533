//! What a process counts once, whatever it serves: its log and its spans.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::{ConstCounter, Counter},
};

/// What a process counts once, however many services it runs.
#[derive(Debug)]
pub struct Process {
    /// Spans that no collector took.
    pub spans_dropped: Counter,
    /// Batches of spans that the collector did not take.
    pub span_export_failures: Counter,
    /// Log lines not written for their likeness to others.
    pub log_lines_suppressed: Counter,
    /// Reads how many log lines were lost.
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

/// A counter that is kept elsewhere and read at each scrape.
#[derive(Debug)]
pub struct ReadAtScrape {
    /// Its name without prefix and suffix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Reads it.
    pub read: fn() -> u64,
}

impl Collector for ReadAtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, kind)?)
    }
}
