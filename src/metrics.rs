//! Prometheus metrics of the service. No label identifies a tenant, a caller or a token.

mod guard;
mod labels;
pub mod operations;
mod process;
mod process_stats;
mod scrape;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{OnceLock, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::{
    guard::GuardMetrics,
    labels::*,
    process::Process,
    scrape::{Pool, Pools},
};
use self::{process_stats::ProcessStats, scrape::CounterAtScrape};

/// Histogram buckets in seconds. These are the buckets of the OpenTelemetry RPC conventions, with
/// finer ones added at the low end, because most calls take less than a millisecond.
const SECONDS: [f64; 18] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0,
];

/// Tables whose rows are deleted by age.
const PURGED: [&str; 9] = [
    "tokens",
    "token_secrets",
    "token_usage",
    "requests",
    "audit_events",
    "changes",
    "replays",
    "sessions",
    "assertions",
];

/// Periods within which expiring tokens are counted, in ascending order.
pub const WITHIN: [&str; 3] = ["1d", "7d", "30d"];

/// All metrics of one service.
pub struct Metrics {
    registry: Registry,
    /// Duration of calls.
    pub calls: Family<CallLabels, Histogram>,
    /// Verdicts by reason. The reason is `OK` if the token is active and every action is allowed.
    pub verdicts: Family<ReasonLabel, Counter>,
    verdicts_ok: OnceLock<Counter>,
    /// Checks by Envoy, by outcome and reason.
    pub checks: Family<CheckLabels, Counter>,
    checks_allowed: OnceLock<Counter>,
    /// Calls and batch questions that ended with an error, by the reason of the error.
    pub errors: Family<ReasonLabel, Counter>,
    /// Verdicts answered from the cache.
    pub cache_hits: Counter,
    /// Verdicts that required a lookup in the store.
    pub cache_misses: Counter,
    /// Changes that a poll of the change log found and that evicted cache entries.
    pub evictions: Counter,
    /// Number of digests whose facts are cached.
    pub cache_entries: Gauge,
    /// Answers that were older than the freshness bound, as `--serve-stale-for` permits.
    pub stale_answers: Counter,
    /// Age of the lease in seconds; infinity if there is no lease.
    pub lease_age: Gauge<f64, AtomicU64>,
    /// How often a newly trusted database replaced the former one. A database also counts as new
    /// after it was restarted.
    pub origin_changes: Counter,
    /// Time from a change by another replica until the change was applied here.
    pub revoke_visibility: Histogram,
    /// Open `IntrospectionService.Watch` streams.
    pub watches: Gauge,
    /// Changes sent on `IntrospectionService.Watch` streams.
    pub watch_changes: Counter,
    /// `IntrospectionService.Watch` streams that were ended because they fell behind.
    pub watch_lagged: Counter,
    /// 1, with the version of the catalogue in effect.
    pub catalogue: Family<CatalogueLabel, Gauge>,
    /// Requested actions that are not in the catalogue. The caller may have made a typo, or may be
    /// a newer CMS.
    pub unknown_actions: Counter,
    /// Refusals dropped because the audit queue was full.
    pub refusals_dropped: Counter,
    /// (Token, service) pairs whose last use is not written yet.
    pub usage_waiting: Gauge,
    /// Transactions that wrote the last uses of tokens.
    pub usage_writes: Counter,
    /// (Token, service) pairs whose last use was written.
    pub usage_rows_written: Counter,
    /// Failed transactions that should have written the last uses of tokens. The uses are kept for
    /// a retry.
    pub usage_write_failures: Counter,
    /// Token uses dropped because the tracker was full.
    pub usage_dropped: Counter,
    /// Reports of leaked secrets, by outcome.
    pub leak_reports: Family<LeakLabel, Counter>,
    /// 1 if the service is SERVING.
    pub serving: Family<ServiceLabel, Gauge>,
    /// Seconds by which this process's clock is ahead of the database's clock.
    pub clock_offset: Gauge<f64, AtomicU64>,
    /// Steps of the wall clock by more than the permitted skew.
    pub clock_steps: Counter,
    /// 1 while the clock is wrong. No verdict or change is answered meanwhile.
    pub clock_wrong: Gauge,
    /// 1 while the SQLite file or its write-ahead log is deleted or replaced.
    pub store_file_lost: Gauge,
    /// The restore guard.
    pub guard: GuardMetrics,
    /// 1 while the database is read-only.
    pub database_read_only: Gauge,
    /// 1 if a listener beyond loopback has no TLS.
    pub plaintext: Gauge,
    /// 1 if the database is not on this machine and TLS does not verify it.
    pub database_unverified: Gauge,
    /// Connections to the database, by pool.
    pub pools: Pools,
    /// Open connections.
    pub connections: Gauge,
    /// Connections refused or closed early, by cause.
    pub connections_refused: Family<WhyLabel, Counter>,
    /// When certificates expire, in seconds since the Unix epoch.
    pub tls_expiry: Family<CertificateLabel, Gauge<f64, AtomicU64>>,
    /// 1 while the TLS files on disk are unusable and the previously loaded ones stay in use.
    pub tls_reload_failing: Gauge,
    /// Failed attempts to load new TLS files.
    pub tls_reload_failures: Counter,
    /// Issuers whose keys are unavailable.
    pub issuers_without_keys: Gauge<i64>,
    /// Process-wide counters.
    process: Process,
    /// Rows deleted because of their age, by table.
    pub purged_rows: Family<TableLabel, Counter>,
    /// Failed housekeeping tasks.
    pub housekeeping_failures: Counter,
    /// When housekeeping last completed all tasks, in seconds since the Unix epoch; 0 before the
    /// first time.
    pub housekeeping_last_run: Gauge<f64, AtomicU64>,
    /// Live tokens that expire soon, by period. A longer period includes the shorter ones.
    pub tokens_expiring: Family<WithinLabel, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::of_process(Process::default())
    }
}

impl Metrics {
    /// Creates the metrics of one service. `process` has the counters of the whole process.
    #[must_use]
    pub fn of_process(process: Process) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            calls: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            verdicts: Family::default(),
            verdicts_ok: OnceLock::new(),
            checks: Family::default(),
            checks_allowed: OnceLock::new(),
            errors: Family::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            evictions: Counter::default(),
            cache_entries: Gauge::default(),
            stale_answers: Counter::default(),
            lease_age: Gauge::default(),
            origin_changes: Counter::default(),
            revoke_visibility: Histogram::new(SECONDS),
            watches: Gauge::default(),
            watch_changes: Counter::default(),
            watch_lagged: Counter::default(),
            catalogue: Family::default(),
            unknown_actions: Counter::default(),
            refusals_dropped: Counter::default(),
            usage_waiting: Gauge::default(),
            usage_writes: Counter::default(),
            usage_rows_written: Counter::default(),
            usage_write_failures: Counter::default(),
            usage_dropped: Counter::default(),
            leak_reports: Family::default(),
            serving: Family::default(),
            clock_offset: Gauge::default(),
            clock_steps: Counter::default(),
            clock_wrong: Gauge::default(),
            store_file_lost: Gauge::default(),
            guard: GuardMetrics::default(),
            database_read_only: Gauge::default(),
            plaintext: Gauge::default(),
            database_unverified: Gauge::default(),
            pools: Pools::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            tls_expiry: Family::default(),
            tls_reload_failing: Gauge::default(),
            tls_reload_failures: Counter::default(),
            issuers_without_keys: Gauge::default(),
            process,
            purged_rows: Family::default(),
            housekeeping_failures: Counter::default(),
            housekeeping_last_run: Gauge::default(),
            tokens_expiring: Family::default(),
        };
        metrics.register();
        // Creates these series with the value 0, so that an alert can see their first increment.
        for why in ["address", "accept", "handshake", "slow", "displaced"] {
            drop(metrics.connections_refused.get_or_create(&WhyLabel { why }));
        }
        for table in PURGED {
            drop(metrics.purged_rows.get_or_create(&TableLabel { table }));
        }
        for within in WITHIN {
            drop(
                metrics
                    .tokens_expiring
                    .get_or_create(&WithinLabel { within }),
            );
        }
        for outcome in ["REVOKED", "DEAD", "SUPERSEDED", "UNKNOWN"] {
            drop(metrics.leak_reports.get_or_create(&LeakLabel { outcome }));
        }
        let (outcome, reason) = ("ALLOWED", "OK");
        drop(
            metrics
                .checks
                .get_or_create(&CheckLabels { outcome, reason }),
        );
        metrics
    }

    #[rustfmt::skip]
    fn register(&mut self) {
        let registry = &mut self.registry;
        let calls = registry.sub_registry_with_label(("rpc_system_name".into(), "grpc".into()));
        calls.register_with_unit("rpc_server_call_duration", "Duration of calls", Unit::Seconds, self.calls.clone());
        registry.register_with_unit("db_client_operation_duration", "Duration of the store's operations", Unit::Seconds, operations::DURATIONS.clone());
        registry.register_collector(Box::new(self.pools.clone()));
        registry.register_collector(Box::new(ProcessStats));
        let own = registry.sub_registry_with_prefix("stacktoken");
        own.register("verdicts", "Verdicts by reason", self.verdicts.clone());
        own.register("checks", "External authorization checks by Envoy, by result", self.checks.clone());
        own.register("errors", "Calls, and questions of a batch, that ended in an error, by reason", self.errors.clone());
        own.register("cache_hits", "Verdicts answered from the cache", self.cache_hits.clone());
        own.register("cache_misses", "Verdicts that needed a read of the store", self.cache_misses.clone());
        own.register("cache_evictions", "Changes by other replicas that evicted cache entries", self.evictions.clone());
        own.register("cache_entries", "Digests in the cache", self.cache_entries.clone());
        own.register("stale_answers", "Answers older than the freshness bound, as --serve-stale-for permits", self.stale_answers.clone());
        own.register_with_unit("lease_age", "Age of the lease: time since the point up to which all changes are applied", Unit::Seconds, self.lease_age.clone());
        own.register("origin_changes", "Times that the trusted database changed: a failover, a restart or another database", self.origin_changes.clone());
        own.register_with_unit("revoke_visibility", "Delay between a change by another replica and its application here", Unit::Seconds, self.revoke_visibility.clone());
        own.register("watches", "Open IntrospectionService.Watch streams", self.watches.clone());
        own.register("watch_changes", "Changes sent on Watch streams", self.watch_changes.clone());
        own.register("watch_lagged", "Watch streams that were closed because they fell behind", self.watch_lagged.clone());
        own.register("catalogue_info", "1, with the version of the catalogue of actions in effect", self.catalogue.clone());
        own.register("unknown_actions", "Actions in questions that the catalogue does not have", self.unknown_actions.clone());
        own.register("audit_refusals_dropped", "Refusals dropped because the audit buffer was full", self.refusals_dropped.clone());
        own.register("usage_waiting", "Pairs of token and service whose last use is not yet written", self.usage_waiting.clone());
        own.register("usage_writes", "Transactions that recorded when tokens were used", self.usage_writes.clone());
        own.register("usage_rows_written", "Pairs of token and service whose last use was recorded", self.usage_rows_written.clone());
        own.register("usage_write_failures", "Transactions that failed to record when tokens were used", self.usage_write_failures.clone());
        own.register("usage_dropped", "Uses of tokens that were not recorded because the limit of pairs was reached", self.usage_dropped.clone());
        own.register("leak_reports", "Reports of leaked secrets, by outcome", self.leak_reports.clone());
        own.register("serving", "1 while the service is SERVING", self.serving.clone());
        own.register_with_unit("clock_offset", "Offset of the clock from the database's; positive if the clock is ahead", Unit::Seconds, self.clock_offset.clone());
        own.register("clock_steps", "Steps of the wall clock by more than the permitted skew", self.clock_steps.clone());
        own.register("clock_wrong", "1 while the clock is wrong by more than the permitted skew, and nothing is answered", self.clock_wrong.clone());
        own.register("store_file_lost", "1 while the SQLite file or its write-ahead log is deleted or replaced", self.store_file_lost.clone());
        self.guard.register(own);
        own.register("database_read_only", "1 while the database can be reached but is read-only", self.database_read_only.clone());
        own.register("listener_without_tls", "1 if a listener that is not on loopback has no TLS", self.plaintext.clone());
        own.register("database_without_verified_tls", "1 if a database that is not on loopback is not verified by TLS", self.database_unverified.clone());
        own.register("connections", "Open connections", self.connections.clone());
        own.register("connections_refused", "Connections refused or closed at a limit, by reason", self.connections_refused.clone());
        own.register_with_unit("tls_certificate_expiry_timestamp", "Expiry of the certificates, in seconds since the Unix epoch", Unit::Seconds, self.tls_expiry.clone());
        own.register("tls_reload_failing", "1 while the TLS files on disk cannot be loaded and the previous ones are in use", self.tls_reload_failing.clone());
        own.register("tls_reload_failures", "Failed attempts to load new TLS files", self.tls_reload_failures.clone());
        own.register("issuers_without_keys", "Issuers whose keys are unavailable", self.issuers_without_keys.clone());
        own.register("spans_dropped", "Spans dropped because no collector accepted them", self.process.spans_dropped.clone());
        own.register("span_export_failures", "Failed exports of span batches", self.process.span_export_failures.clone());
        own.register("log_lines_suppressed", "Log lines suppressed by sampling", self.process.log_lines_suppressed.clone());
        own.register_collector(Box::new(CounterAtScrape {
            name: "log_lines_dropped",
            help: "Log lines dropped because standard error was not read in time",
            read: self.process.log_lines_dropped,
        }));
        own.register("purged_rows", "Rows deleted for their age, by table", self.purged_rows.clone());
        own.register("housekeeping_failures", "Number of failed housekeeping tasks", self.housekeeping_failures.clone());
        own.register_with_unit("housekeeping_last_run_timestamp", "Time of the last complete housekeeping run, in seconds since the Unix epoch", Unit::Seconds, self.housekeeping_last_run.clone());
        own.register("tokens_expiring", "Live tokens that expire within the period (cumulative)", self.tokens_expiring.clone());
        let build = Family::<BuildLabel, Gauge>::default();
        build.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        own.register("build_info", "Always 1; the label has the version of the program", build);
    }

    /// Counts a verdict by the name of its reason, which is `OK` if the token is active and every
    /// action is allowed.
    pub fn count_verdict(&self, reason: Option<&'static str>) {
        let count = |reason| self.verdicts.get_or_create_owned(&ReasonLabel { reason });
        match reason {
            // Cached, because nearly every verdict is OK.
            None => self.verdicts_ok.get_or_init(|| count("OK")).inc(),
            Some(reason) => count(reason).inc(),
        };
    }

    /// Counts an allowed check by Envoy.
    pub fn count_allowed_check(&self) {
        let (outcome, reason) = ("ALLOWED", "OK");
        let count = || {
            self.checks
                .get_or_create_owned(&CheckLabels { outcome, reason })
        };
        self.checks_allowed.get_or_init(count).inc();
    }

    /// Records the duration of a call under its labels.
    pub fn observe_call(&self, labels: &CallLabels, took: Duration) {
        self.calls.get_or_create(labels).observe(took.as_secs_f64());
    }

    /// Sets the metric that shows which catalogue of actions is in effect.
    pub fn show_catalogue(&self, version: &str) {
        let version = version.to_owned();
        self.catalogue
            .get_or_create(&CatalogueLabel { version })
            .set(1);
    }

    /// Counts a failed call or batch question by the reason of its error. Does nothing if the error
    /// has no reason.
    pub fn note_error(&self, reason: Option<&'static str>) {
        if let Some(reason) = reason {
            self.errors.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Counts a connection that was refused or closed early.
    pub fn refuse_connection(&self, why: &'static str) {
        self.connections_refused
            .get_or_create(&WhyLabel { why })
            .inc();
    }

    /// Returns all metrics as OpenMetrics 1.0 text.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// Returns all metrics in the older text format of Prometheus. In this format, the `HELP` and
    /// `TYPE` lines of a counter use the name of its sample, which ends in `_total`.
    #[must_use]
    pub fn expose_plain(&self) -> String {
        let open = self.expose();
        let counters: BTreeSet<_> = open
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
            .collect();
        let mut out = String::with_capacity(open.len());
        for line in open.lines() {
            let comment = line.strip_prefix("# ").unwrap_or_default();
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("EOF" | "UNIT"), ..) => continue,
                (Some(kind @ ("HELP" | "TYPE")), Some(family), Some(rest)) => {
                    let total = if counters.contains(family) {
                        "_total"
                    } else {
                        ""
                    };
                    out.extend(["# ", kind, " ", family, total, " ", rest]);
                }
                _ => out.push_str(line),
            }
            out.push('\n');
        }
        out
    }
}
