//! Metrics whose values are read at each scrape.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// A counter whose value is kept outside the registry.
#[derive(Debug)]
pub struct CounterAtScrape {
    /// Name of the counter, without prefix and suffix.
    pub name: &'static str,
    /// Help text, which says what is counted.
    pub help: &'static str,
    /// Function that returns the value of the counter.
    pub read: fn() -> u64,
}

impl Collector for CounterAtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = ConstCounter::new((self.read)());
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, kind)?)
    }
}

/// The connections of one database pool.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Name of the pool.
    pub name: &'static str,
    /// Open connections that nothing uses.
    pub idle: u32,
    /// Connections in use.
    pub used: u32,
    /// Maximum number of open connections.
    pub max: u32,
}

type ReadPools = Box<dyn Fn() -> Vec<Pool> + Send + Sync>;

/// The connections of the database pools. There are none until the store is open.
#[derive(Clone, Default)]
pub struct Pools(Arc<OnceLock<ReadPools>>);

impl Pools {
    /// Sets the function that reads the pools. Only the first call has an effect.
    pub fn read_with(&self, read: impl Fn() -> Vec<Pool> + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(read));
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pools")
    }
}

const POOL: &str = "db_client_connection_pool_name";
const STATE: &str = "db_client_connection_state";

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pools = self.0.get().map(|read| read()).unwrap_or_default();
        let help = "Open connections to the database, by pool and state";
        let mut count = encoder.encode_descriptor(
            "db_client_connection_count",
            help,
            None,
            MetricType::Gauge,
        )?;
        for pool in &pools {
            for (state, value) in [("idle", pool.idle), ("used", pool.used)] {
                let labels = [(POOL, pool.name), (STATE, state)];
                ConstGauge::new(value).encode(count.encode_family(&labels)?)?;
            }
        }
        let help = "Maximum number of open connections to the database, by pool";
        let mut max =
            encoder.encode_descriptor("db_client_connection_max", help, None, MetricType::Gauge)?;
        for pool in &pools {
            let labels = [(POOL, pool.name)];
            ConstGauge::new(pool.max).encode(max.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
