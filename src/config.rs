//! The operator's settings. Each setting is both a flag and an environment variable, and has a safe
//! default wherever possible. This module only parses the settings and does not interpret them. It
//! depends on no other module.

mod client_limits;
mod values;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use self::values::{bound, bytes, count, flush_every, hours, number, pause, skew, time};
pub use self::{
    client_limits::ClientLimits,
    values::{address, call_timeout, duration, public_url, ratio},
};

/// The default of `usage_pairs`. Calls with 10,000 tokens per second produce fewer pairs than this
/// in a minute. This many pairs take about 100 MiB of memory.
const USAGE_PAIRS: usize = 1_000_000;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line, for machines
    Json,
    /// Plain text, for people
    Text,
}

/// Log settings, which every command accepts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct Log {
    /// Filter for log lines, in the syntax of tracing, such as `info` or `stacktoken=debug`.
    /// Default: the value of RUST_LOG
    #[arg(long, env = "STACKTOKEN_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Format of log lines
    #[arg(
        long,
        env = "STACKTOKEN_LOG_FORMAT",
        global = true,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// The location of the store. A database URL can contain a password, so the URL is never printed.
#[derive(Args, Clone)]
#[command(next_help_heading = "Store")]
pub struct DatabaseFlags {
    /// URL of the store: sqlite:PATH or postgres://…
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// File that contains the database URL, instead of --database-url
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_URL_FILE",
        value_name = "FILE"
    )]
    pub database_url_file: Option<PathBuf>,
    /// URL that reaches the same PostgreSQL database without a pooler, for LISTEN, change log
    /// polls, heartbeats and migrations. Default: the database URL
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_DIRECT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_direct_url: Option<String>,
    /// File that contains the direct URL, instead of --database-direct-url
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_DIRECT_URL_FILE",
        value_name = "FILE"
    )]
    pub database_direct_url_file: Option<PathBuf>,
    /// Maximum number of PostgreSQL connections for the calls of this replica: half of them,
    /// rounded down, for changes and the rest for reads, at least one of each. The replica uses up
    /// to four more for itself
    #[arg(long, global = true, env = "STACKTOKEN_DATABASE_CONNECTIONS", default_value_t = 16, value_name = "COUNT", value_parser = count::<u32>)]
    pub database_connections: u32,
}

/// When a change waits for the restore guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GuardWaits {
    /// Never: the journal of the guard is written in the background, within a second
    Background,
    /// Before its COMMIT and before its answer, so that the journal misses no change
    Strict,
}

/// Where the restore guard is.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Restore guard")]
pub struct GuardPlace {
    /// Directory of the restore guard, outside the database and shared by all replicas: a path, or
    /// `file:///path`. With it, nothing that was revoked works again after a restore from a backup.
    /// Without it, there is no guard
    #[arg(long, env = "STACKTOKEN_GUARD", value_name = "URL")]
    pub guard: Option<String>,
    /// File with the key that seals the guard, at least 16 bytes. Without a key, the guard detects
    /// damage but not forgery
    #[arg(long, env = "STACKTOKEN_GUARD_KEY_FILE", value_name = "FILE")]
    pub guard_key_file: Option<PathBuf>,
}

/// The restore guard of a server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Restore guard")]
pub struct GuardFlags {
    /// Where it is
    #[command(flatten)]
    pub place: GuardPlace,
    /// When a change that takes something away waits for the guard
    #[arg(
        long,
        env = "STACKTOKEN_GUARD_MODE",
        default_value = "background",
        value_name = "MODE"
    )]
    pub guard_mode: GuardWaits,
}

/// Limits and timeouts of the server. Every default is safe.
#[derive(Args, Clone, Debug)]
pub struct Tuning {
    /// Maximum age of an answer (R12): every replica applies a change within this time
    #[arg(long, env = "STACKTOKEN_FRESHNESS_BOUND", default_value = "1s", value_parser = bound, value_name = "TIME", help_heading = "Cache and freshness")]
    pub freshness_bound: Duration,
    /// Maximum difference between clocks. A replica refuses to answer if its clock differs from the
    /// database's clock by more than this time. A change is refused if the clock is behind the last
    /// change of the same stack by more than this time
    #[arg(long, env = "STACKTOKEN_MAX_CLOCK_SKEW", default_value = "2s", value_parser = skew, value_name = "TIME", help_heading = "Cache and freshness")]
    pub max_clock_skew: Duration,
    /// How long to continue answering from the cache after the freshness bound while the store is
    /// unavailable. With 0, such calls are refused
    #[arg(long, env = "STACKTOKEN_SERVE_STALE_FOR", default_value = "0s", value_parser = duration, value_name = "TIME", help_heading = "Cache and freshness")]
    pub serve_stale_for: Duration,
    /// Maximum number of tokens in the cache
    #[arg(long, env = "STACKTOKEN_CACHE_ENTRIES", default_value_t = 100_000, value_name = "COUNT", value_parser = number::<usize>, help_heading = "Cache and freshness")]
    pub cache_entries: usize,
    /// How often to write to the store when tokens were last used. `last_used_at` lags by at most
    /// this time plus one minute
    #[arg(long, env = "STACKTOKEN_USAGE_FLUSH_EVERY", default_value = "30s", value_parser = flush_every, value_name = "TIME", help_heading = "Cache and freshness")]
    pub usage_flush_every: Duration,
    /// Maximum number of (token, service) pairs kept in memory until they are written to the store.
    /// This is not a setting, because only benchmarks and tests change the number.
    #[arg(skip = USAGE_PAIRS)]
    pub usage_pairs: usize,
    /// Maximum number of concurrent reads of the store for verdicts. Further reads are refused as
    /// OVERLOADED
    #[arg(long, env = "STACKTOKEN_MAX_READINGS", default_value_t = 256, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Limits")]
    pub max_readings: usize,
    /// How long callers may reuse a verdict
    #[arg(long, env = "STACKTOKEN_VERDICT_MAX_AGE", default_value = "1s", value_parser = duration, value_name = "TIME", help_heading = "Cache and freshness")]
    pub verdict_max_age: Duration,
    /// Deadline of a call whose client sets no deadline or a longer one
    #[arg(long, env = "STACKTOKEN_DEADLINE", default_value = "5s", value_parser = time, value_name = "TIME", help_heading = "Limits")]
    pub deadline: Duration,
    /// Maximum size of a request message, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_REQUEST_BYTES", default_value_t = 64 * 1024, value_name = "BYTES", value_parser = bytes::<usize>, help_heading = "Limits")]
    pub max_request_bytes: usize,
    /// Maximum size of a response message, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_RESPONSE_BYTES", default_value_t = 1024 * 1024, value_name = "BYTES", value_parser = bytes::<usize>, help_heading = "Limits")]
    pub max_response_bytes: usize,
    /// Maximum total size of the headers of a request, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_HEADER_BYTES", default_value_t = 16 * 1024, value_name = "BYTES", value_parser = bytes::<u32>, help_heading = "Limits")]
    pub max_header_bytes: u32,
    /// Maximum number of open connections
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTIONS", default_value_t = 10_000, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Connections")]
    pub max_connections: usize,
    /// Maximum number of open connections from one address. Further connections are closed
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1_000, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Connections")]
    pub max_connections_per_address: usize,
    /// Number of threads that serve connections, each with a runtime of its own. Cached verdicts
    /// are answered on them without waking another thread. With 0, connections share the runtime of
    /// all other work [default: one thread per CPU]
    #[arg(long, env = "STACKTOKEN_CONNECTION_THREADS", value_name = "COUNT", value_parser = number::<usize>, help_heading = "Connections")]
    pub connection_threads: Option<usize>,
    /// How long a client may take for the TLS handshake, and then again to start HTTP/2
    #[arg(long, env = "STACKTOKEN_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = time, value_name = "TIME", help_heading = "Connections")]
    pub handshake_timeout: Duration,
    /// Maximum number of concurrent calls on one connection
    #[arg(long, env = "STACKTOKEN_MAX_STREAMS", default_value_t = 256, value_name = "COUNT", value_parser = count::<u32>, help_heading = "Limits")]
    pub max_streams: u32,
    /// Maximum number of open Health.Watch streams. The same limit applies separately to
    /// IntrospectionService.Watch streams
    #[arg(long, env = "STACKTOKEN_MAX_WATCHES", default_value_t = 2048, value_name = "COUNT", value_parser = number::<usize>, help_heading = "Limits")]
    pub max_watches: usize,
    /// Maximum number of changes queued for the slowest Watch stream. Only tests change this
    /// number.
    #[arg(skip = 1024_usize)]
    pub watch_queue: usize,
    /// Number of streams on one connection that the server may reset because of client errors,
    /// before it closes the connection
    #[arg(long, env = "STACKTOKEN_MAX_RESETS", default_value_t = 256, value_name = "COUNT", value_parser = number::<usize>, help_heading = "Limits")]
    pub max_resets: usize,
    /// Maximum number of calls in progress. Further calls are refused as OVERLOADED
    #[arg(long, env = "STACKTOKEN_MAX_CALLS", default_value_t = 2048, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Limits")]
    pub max_calls: usize,
    /// Limits per caller, connection and address
    #[command(flatten)]
    pub client_limits: ClientLimits,
    /// Interval between keepalive pings on an idle connection
    #[arg(long, env = "STACKTOKEN_KEEPALIVE_INTERVAL", default_value = "20s", value_parser = time, value_name = "TIME", help_heading = "Connections")]
    pub keepalive_interval: Duration,
    /// How long to wait for the reply to a keepalive ping before the connection is closed
    #[arg(long, env = "STACKTOKEN_KEEPALIVE_TIMEOUT", default_value = "10s", value_parser = time, value_name = "TIME", help_heading = "Connections")]
    pub keepalive_timeout: Duration,
    /// Age, ±10 %, at which a connection is closed gracefully, so that clients spread over all
    /// replicas
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTION_AGE", default_value = "5m", value_parser = time, value_name = "TIME", help_heading = "Connections")]
    pub max_connection_age: Duration,
    /// How long calls on a connection may still run after it reaches its maximum age
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTION_AGE_GRACE", default_value = "30s", value_parser = duration, value_name = "TIME", help_heading = "Connections")]
    pub max_connection_age_grace: Duration,
    /// Sustained rate of changes that one caller may request, per second
    #[arg(long, env = "STACKTOKEN_CHANGES_PER_SECOND", default_value = "20", value_name = "COUNT", value_parser = count::<NonZeroU32>, help_heading = "Limits")]
    pub changes_per_second: NonZeroU32,
    /// Number of changes that one caller may request in a burst after an idle period
    #[arg(long, env = "STACKTOKEN_CHANGES_BURST", default_value = "100", value_name = "COUNT", value_parser = count::<NonZeroU32>, help_heading = "Limits")]
    pub changes_burst: NonZeroU32,
    /// Maximum number of live sessions of one federated token. Further exchanges are refused
    #[arg(long, env = "STACKTOKEN_MAX_SESSIONS_PER_TOKEN", default_value_t = 100, value_name = "COUNT", value_parser = count::<u32>, help_heading = "Limits")]
    pub max_sessions_per_token: u32,
    /// Maximum number of live sessions of one workload within one federated token. Further exchanges
    /// are refused
    #[arg(long, env = "STACKTOKEN_MAX_SESSIONS_PER_SUBJECT", default_value_t = 10, value_name = "COUNT", value_parser = count::<u32>, help_heading = "Limits")]
    pub max_sessions_per_subject: u32,
    /// Maximum number of unrecognized tokens that one caller may present per second
    #[arg(long, env = "STACKTOKEN_UNRECOGNIZED_PER_SECOND", default_value = "1000", value_name = "COUNT", value_parser = count::<NonZeroU32>, help_heading = "Limits")]
    pub unrecognized_per_second: NonZeroU32,
    /// Name of a background task that panics soon after its start. Only a test sets this, to show
    /// that no task can end unnoticed.
    #[arg(skip)]
    pub failing_task: Option<&'static str>,
    /// Whether clients can read the API contract through gRPC reflection, without credentials
    #[arg(long, env = "STACKTOKEN_REFLECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Connections")]
    pub reflection: bool,
    /// How long the keys of an issuer that cannot be reached stay trusted
    #[arg(long, env = "STACKTOKEN_JWKS_MAX_STALE", default_value = "24h", value_parser = time, value_name = "TIME", help_heading = "Cache and freshness")]
    pub jwks_max_stale: Duration,
    /// The operator's own rules
    #[command(flatten)]
    pub rules: Rules,
    /// How long to continue to answer after SIGTERM, so that callers notice the shutdown
    /// [default: 5s; dev: 0s]
    #[arg(long, env = "STACKTOKEN_DRAIN_DELAY", value_parser = duration, value_name = "TIME", help_heading = "Connections")]
    pub drain_delay: Option<Duration>,
    /// How long calls in progress may still run after the drain delay
    #[arg(long, env = "STACKTOKEN_DRAIN_GRACE", default_value = "20s", value_parser = duration, value_name = "TIME", help_heading = "Connections")]
    pub drain_grace: Duration,
    /// Trace settings
    #[command(flatten)]
    pub traces: Traces,
    /// Retention settings
    #[command(flatten)]
    pub keeping: RetentionSettings,
}

/// Files with the operator's own rules, which are read at startup.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rules")]
pub struct Rules {
    /// The operator's own modules and actions
    #[command(flatten)]
    pub catalogue: CatalogueFlag,
    /// TOML file with the actions that each request checked by Envoy requires. It adds to the
    /// built-in table, which `stacktoken routes` prints
    #[arg(long, env = "STACKTOKEN_AUTHZ_ROUTES", value_name = "FILE")]
    pub authz_routes: Option<PathBuf>,
}

/// The file with the operator's own modules and actions.
#[derive(Args, Clone, Debug, Default)]
pub struct CatalogueFlag {
    /// TOML file with modules and actions of your own, which are added to the built-in catalogue,
    /// and with built-in actions that no token may perform here. `stacktoken catalogue` prints the
    /// catalogue in effect
    #[arg(long = "catalogue", env = "STACKTOKEN_CATALOGUE", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// How long data is kept. Retention times that are too short to be intended are refused.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Retention")]
pub struct RetentionSettings {
    /// How long revoked and expired tokens remain listed before they are deleted (R15)
    #[arg(long, env = "STACKTOKEN_TOKEN_RETENTION", default_value = "90d", value_parser = hours, value_name = "TIME")]
    pub token_retention: Duration,
    /// How long rows of the audit are kept (R14)
    #[arg(long, env = "STACKTOKEN_AUDIT_RETENTION", default_value = "400d", value_parser = hours, value_name = "TIME")]
    pub audit_retention: Duration,
    /// How long rows of the change log are kept. A client that was disconnected for longer must
    /// start over with an empty cache
    #[arg(long, env = "STACKTOKEN_CHANGE_RETENTION", default_value = "7d", value_parser = hours, value_name = "TIME")]
    pub change_retention: Duration,
    /// How often to delete rows whose retention period has ended
    #[arg(long, env = "STACKTOKEN_HOUSEKEEPING_EVERY", default_value = "1h", value_parser = pause, value_name = "TIME")]
    pub housekeeping_every: Duration,
}

/// Settings for tracing calls. The collector's URL may contain a password by mistake, so the URL is
/// never printed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct Traces {
    /// Collector that receives spans with OTLP over gRPC: http://HOST:PORT or https://HOST:PORT.
    /// Without a collector, no spans are created
    #[arg(
        long,
        env = "STACKTOKEN_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
    /// Fraction of calls to trace, from 0 to 1, if the caller's `traceparent` does not decide
    #[arg(long, env = "STACKTOKEN_TRACE_SAMPLE_RATIO", default_value_t = 0.01, value_parser = ratio, value_name = "RATIO")]
    pub trace_sample_ratio: f64,
}

/// The addresses that the service listens on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Addresses")]
pub struct Listen {
    /// Address of the gRPC port
    #[arg(
        long,
        env = "STACKTOKEN_LISTEN",
        default_value = "0.0.0.0:50051",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Address of the admin port, which serves metrics and probes over HTTP
    #[arg(
        long,
        env = "STACKTOKEN_ADMIN_LISTEN",
        default_value = "0.0.0.0:9464",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,
    /// Address of the HTTP port, which serves OAuth endpoints and the routes of the CMS. Without an
    /// address, there is no such port
    #[arg(
        long,
        env = "STACKTOKEN_HTTP_LISTEN",
        requires = "http_public_url",
        value_parser = address,
        value_name = "ADDRESS"
    )]
    pub http_listen: Option<SocketAddr>,
    /// URL at which clients reach the HTTP port, without a path: the `issuer` of its metadata.
    /// Required with --http-listen
    #[arg(
        long,
        env = "STACKTOKEN_HTTP_PUBLIC_URL",
        value_parser = public_url,
        value_name = "URL"
    )]
    pub http_public_url: Option<String>,
}

/// TLS on the gRPC port and the HTTP port. The files are reloaded when they change.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub struct TlsFlags {
    /// Certificate chain of the server, its own certificate first, in PEM. Without a certificate,
    /// the ports use plaintext
    #[arg(long, env = "STACKTOKEN_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the server's certificate, in PEM
    #[arg(long, env = "STACKTOKEN_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// CAs that client certificates are verified against, in PEM; required by the mtls entries of
    /// the issuers file
    #[arg(long, env = "STACKTOKEN_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}
