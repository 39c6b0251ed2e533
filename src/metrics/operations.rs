//! The duration of the store's operations, according to OpenTelemetry's database conventions.

use std::{sync::LazyLock, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};

/// Histogram buckets in seconds. These are the buckets of the OpenTelemetry database conventions,
/// and one finer bucket at the low end, because a lookup takes less than a millisecond.
const SECONDS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Duration of the store's operations in this process.
pub static DURATIONS: LazyLock<Durations> =
    LazyLock::new(|| Family::new_with_constructor(|| Histogram::new(SECONDS)));

/// Histograms of durations, by operation.
pub type Durations = Family<OperationLabels, Histogram, fn() -> Histogram>;

/// An operation of the store, and how it failed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OperationLabels {
    /// `sqlite` or `postgresql`.
    pub db_system_name: &'static str,
    /// Name of the operation, such as `issue` or `look_up`.
    pub db_operation_name: &'static str,
    /// Kind of the error if the operation failed.
    pub error_type: Option<&'static str>,
}

/// Records the duration of an operation.
pub fn observe(
    system: &'static str,
    operation: &'static str,
    failure: Option<&'static str>,
    took: Duration,
) {
    let labels = OperationLabels {
        db_system_name: system,
        db_operation_name: operation,
        error_type: failure,
    };
    DURATIONS.get_or_create(&labels).observe(took.as_secs_f64());
}
