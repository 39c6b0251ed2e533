//! What the kernel knows about this process, under the names that Prometheus's client libraries
//! use.

use std::fmt;

use procfs::{
    ProcResult,
    process::{LimitValue, Process},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Statistics of the process, read at each scrape.
#[derive(Debug)]
pub struct ProcessStats;

struct Read {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started_at: f64,
    threads: i64,
    open_files: i64,
    max_files: Option<u64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks and seconds are exact below 2^53"
)]
fn read() -> ProcResult<Read> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let limit = process.limits()?.max_open_files.soft_limit;
    Ok(Read {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss * procfs::page_size(),
        virtual_bytes: stat.vsize,
        started_at: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
        threads: stat.num_threads,
        open_files: i64::try_from(process.fd_count()?).unwrap_or(i64::MAX),
        max_files: match limit {
            LimitValue::Value(value) => Some(value),
            LimitValue::Unlimited => None,
        },
    })
}

impl Collector for ProcessStats {
    /// Encodes nothing if the kernel does not answer, for example because `/proc` is not mounted.
    #[rustfmt::skip]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(read) = read() else { return Ok(()) };
        let mut gauge = |name, help, value: f64| {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)
        };
        #[expect(clippy::cast_precision_loss, reason = "bytes are exact below 2^53")]
        {
            gauge("process_resident_memory_bytes", "Resident memory of the process", read.resident_bytes as f64)?;
            gauge("process_virtual_memory_bytes", "Address space of the process", read.virtual_bytes as f64)?;
            gauge("process_start_time_seconds", "Start time of the process, in seconds since the Unix epoch", read.started_at)?;
            gauge("process_threads", "Threads of the process", read.threads as f64)?;
            gauge("process_open_fds", "Open file descriptors", read.open_files as f64)?;
            if let Some(max) = read.max_files {
                gauge("process_max_fds", "Maximum number of open file descriptors", max as f64)?;
            }
        }
        let help = "CPU time of the process, in user and system mode";
        let encoder = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(read.cpu_seconds).encode(encoder)
    }
}
