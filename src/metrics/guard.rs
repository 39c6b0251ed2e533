//! The metrics of the restore guard. Without a guard, all of them are 0.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The metrics of the restore guard.
#[derive(Debug, Default)]
pub struct GuardMetrics {
    /// 1 while the database is behind the mark.
    pub restored_from_past: Gauge,
    /// 1 while the database cannot be compared with the mark.
    pub failing: Gauge,
    /// Age of the oldest line that is not in the journal yet, in seconds.
    pub lag: Gauge<f64, AtomicU64>,
    /// Lines written to the journal.
    pub lines: Counter,
    /// Lines that the journal could not keep.
    pub lines_lost: Counter,
}

impl GuardMetrics {
    /// Registers the metrics.
    #[rustfmt::skip]
    pub fn register(&self, own: &mut Registry) {
        own.register("restored_from_past", "1 while the database is older than the restore guard has recorded", self.restored_from_past.clone());
        own.register("guard_failing", "1 while the database cannot be compared with the restore guard", self.failing.clone());
        own.register_with_unit("guard_lag", "Age of the oldest line that is not in the journal of the restore guard yet", Unit::Seconds, self.lag.clone());
        own.register("guard_lines", "Lines written to the journal of the restore guard", self.lines.clone());
        own.register("guard_lines_lost", "Lines that the journal of the restore guard could not keep", self.lines_lost.clone());
    }
}
