//! What an operator can set: flags, each also as an environment variable, each with a safe
//! default where there can be one. A leaf: it says what was set, not what it means.

mod shares;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

pub use self::shares::Shares;

/// What 10,000 tokens a second come to in a minute, and some more; about 100 MiB when all of it
/// is taken.
const USAGE_PAIRS: usize = 1_000_000;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For machines: one JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Logging; the same for every command.
#[derive(Args, Clone, Debug)]
pub struct Log {
    /// Which log lines to write, as a tracing filter such as `info` or `stacktoken=debug`;
    /// RUST_LOG counts where this is absent
    #[arg(long, env = "STACKTOKEN_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to write them
    #[arg(
        long,
        env = "STACKTOKEN_LOG_FORMAT",
        global = true,
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Where the store is. The URL can hold a password, so it is taken as it is and never printed.
#[derive(Args, Clone)]
pub struct DatabaseFlags {
    /// Where the store is: sqlite:PATH or postgres://…
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// A file that holds the database URL, instead of --database-url
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_URL_FILE",
        value_name = "FILE"
    )]
    pub database_url_file: Option<PathBuf>,
    /// A way to the same PostgreSQL past any pooler, for LISTEN, the feed and migrations
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_DIRECT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_direct_url: Option<String>,
    /// A file that holds it, instead of --database-direct-url
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_DIRECT_URL_FILE",
        value_name = "FILE"
    )]
    pub database_direct_url_file: Option<PathBuf>,
    /// How many connections to PostgreSQL this replica may have for its calls: half of them,
    /// rounded down, for changes and the others for readings, at least one of each; four more
    /// are its own
    #[arg(
        long,
        global = true,
        env = "STACKTOKEN_DATABASE_CONNECTIONS",
        default_value_t = 16,
        value_name = "COUNT"
    )]
    pub database_connections: u32,
}

/// Limits and times of the server. Every one is safe as it stands.
#[derive(Args, Clone, Debug)]
pub struct Tuning {
    /// How old an answer may be (R12): a change is seen everywhere within this time
    #[arg(long, env = "STACKTOKEN_FRESHNESS_BOUND", default_value = "1s", value_parser = bound, value_name = "TIME")]
    pub freshness_bound: Duration,
    /// By how much clocks may differ: a replica whose clock is further off than this against the
    /// database's refuses to answer, and a change is refused where the clock is further behind
    /// the last change of its stack
    #[arg(long, env = "STACKTOKEN_MAX_CLOCK_SKEW", default_value = "2s", value_parser = skew, value_name = "TIME")]
    pub max_clock_skew: Duration,
    /// How much longer to answer from memory while the store is down; 0 refuses instead
    #[arg(long, env = "STACKTOKEN_SERVE_STALE_FOR", default_value = "0s", value_parser = duration, value_name = "TIME")]
    pub serve_stale_for: Duration,
    /// How many tokens are remembered
    #[arg(
        long,
        env = "STACKTOKEN_CACHE_ENTRIES",
        default_value_t = 100_000,
        value_name = "COUNT"
    )]
    pub cache_entries: usize,
    /// How often to write down when tokens were last used: `last_used_at` is behind by this and
    /// a minute at most
    #[arg(long, env = "STACKTOKEN_USAGE_FLUSH_EVERY", default_value = "30s", value_parser = flush_every, value_name = "TIME")]
    pub usage_flush_every: Duration,
    /// How many pairs of token and service are remembered until then. No setting: a measurement
    /// or a test has another.
    #[arg(skip = USAGE_PAIRS)]
    pub usage_pairs: usize,
    /// How many readings of the store for verdicts there may be at once; more are OVERLOADED
    #[arg(
        long,
        env = "STACKTOKEN_MAX_READINGS",
        default_value_t = 256,
        value_name = "COUNT"
    )]
    pub max_readings: usize,
    /// For how long callers may reuse a verdict
    #[arg(long, env = "STACKTOKEN_VERDICT_MAX_AGE", default_value = "1s", value_parser = duration, value_name = "TIME")]
    pub verdict_max_age: Duration,
    /// The deadline of a call whose client sets none, or a longer one
    #[arg(long, env = "STACKTOKEN_DEADLINE", default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub deadline: Duration,
    /// The largest request message, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_REQUEST_BYTES", default_value_t = 64 * 1024, value_name = "BYTES")]
    pub max_request_bytes: usize,
    /// The largest response message, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_RESPONSE_BYTES", default_value_t = 1024 * 1024, value_name = "BYTES")]
    pub max_response_bytes: usize,
    /// The largest set of request headers, in bytes
    #[arg(long, env = "STACKTOKEN_MAX_HEADER_BYTES", default_value_t = 16 * 1024, value_name = "BYTES")]
    pub max_header_bytes: u32,
    /// How many connections may be open at once
    #[arg(
        long,
        env = "STACKTOKEN_MAX_CONNECTIONS",
        default_value_t = 10_000,
        value_name = "COUNT"
    )]
    pub max_connections: usize,
    /// How many of them may come from one address; the next one is closed
    #[arg(
        long,
        env = "STACKTOKEN_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 1_000,
        value_name = "COUNT"
    )]
    pub max_connections_per_address: usize,
    /// How long a client may take for its TLS handshake, and then to begin with HTTP/2
    #[arg(long, env = "STACKTOKEN_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub handshake_timeout: Duration,
    /// How many calls one connection may have open at once
    #[arg(
        long,
        env = "STACKTOKEN_MAX_STREAMS",
        default_value_t = 256,
        value_name = "COUNT"
    )]
    pub max_streams: u32,
    /// How many streams of health's Watch may be open at once, and as many again of
    /// IntrospectionService's
    #[arg(
        long,
        env = "STACKTOKEN_MAX_WATCHES",
        default_value_t = 2048,
        value_name = "COUNT"
    )]
    pub max_watches: usize,
    /// How many pieces of news wait for the slowest who watches; for tests.
    #[arg(skip = 1024_usize)]
    pub watch_queue: usize,
    /// How many streams a connection may have the server reset before it is closed
    #[arg(
        long,
        env = "STACKTOKEN_MAX_RESETS",
        default_value_t = 256,
        value_name = "COUNT"
    )]
    pub max_resets: usize,
    /// How many calls may be at work at once; more are answered OVERLOADED
    #[arg(
        long,
        env = "STACKTOKEN_MAX_CALLS",
        default_value_t = 2048,
        value_name = "COUNT"
    )]
    pub max_calls: usize,
    /// What one caller may have of them
    #[command(flatten)]
    pub shares: Shares,
    /// How often a quiet connection is asked whether its client is still there
    #[arg(long, env = "STACKTOKEN_KEEPALIVE_INTERVAL", default_value = "20s", value_parser = duration, value_name = "TIME")]
    pub keepalive_interval: Duration,
    /// How long the client may take to say so
    #[arg(long, env = "STACKTOKEN_KEEPALIVE_TIMEOUT", default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub keepalive_timeout: Duration,
    /// After how long, give or take a tenth, a connection is closed in peace, so that clients
    /// spread over replicas
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTION_AGE", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub max_connection_age: Duration,
    /// How long calls on such a connection may still take
    #[arg(long, env = "STACKTOKEN_MAX_CONNECTION_AGE_GRACE", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub max_connection_age_grace: Duration,
    /// How many changes one caller may ask for a second, in the long run
    #[arg(
        long,
        env = "STACKTOKEN_CHANGES_PER_SECOND",
        default_value = "20",
        value_name = "COUNT"
    )]
    pub changes_per_second: NonZeroU32,
    /// How many changes one caller may ask for at once after a quiet time
    #[arg(
        long,
        env = "STACKTOKEN_CHANGES_BURST",
        default_value = "100",
        value_name = "COUNT"
    )]
    pub changes_burst: NonZeroU32,
    /// How many unrecognised tokens one caller may present a second
    #[arg(
        long,
        env = "STACKTOKEN_UNRECOGNISED_PER_SECOND",
        default_value = "1000",
        value_name = "COUNT"
    )]
    pub unrecognised_per_second: NonZeroU32,
    /// Whether the contract can be read by reflection, without credentials
    #[arg(long, env = "STACKTOKEN_REFLECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub reflection: bool,
    /// How long keys of an issuer that cannot be reached stay trusted
    #[arg(long, env = "STACKTOKEN_JWKS_MAX_STALE", default_value = "24h", value_parser = duration, value_name = "TIME")]
    pub jwks_max_stale: Duration,
    /// Which actions the requests need that Envoy asks about: a TOML file instead of the table
    /// that is built in
    #[arg(long, env = "STACKTOKEN_AUTHZ_ROUTES", value_name = "FILE")]
    pub authz_routes: Option<PathBuf>,
    /// After SIGTERM: how long to go on answering, so that callers notice [default: 5s; dev: 0s]
    #[arg(long, env = "STACKTOKEN_DRAIN_DELAY", value_parser = duration, value_name = "TIME")]
    pub drain_delay: Option<Duration>,
    /// After that: how long calls at work may take
    #[arg(long, env = "STACKTOKEN_DRAIN_GRACE", default_value = "20s", value_parser = duration, value_name = "TIME")]
    pub drain_grace: Duration,
    /// Traces of calls
    #[command(flatten)]
    pub traces: Traces,
    /// What is kept for how long
    #[command(flatten)]
    pub keeping: Keeping,
}

/// What is kept for how long. Times too short to be meant are refused.
#[derive(Args, Clone, Copy, Debug)]
pub struct Keeping {
    /// How long revoked and expired tokens stay listed after their end (R15); then they are
    /// deleted
    #[arg(long, env = "STACKTOKEN_TOKEN_RETENTION", default_value = "90d", value_parser = hours, value_name = "TIME")]
    pub token_retention: Duration,
    /// How long the audit is kept (R14)
    #[arg(long, env = "STACKTOKEN_AUDIT_RETENTION", default_value = "400d", value_parser = hours, value_name = "TIME")]
    pub audit_retention: Duration,
    /// How long the history of changes is kept: a client that was away for longer has to
    /// begin anew
    #[arg(long, env = "STACKTOKEN_CHANGE_RETENTION", default_value = "7d", value_parser = hours, value_name = "TIME")]
    pub change_retention: Duration,
    /// How often what is older is deleted
    #[arg(long, env = "STACKTOKEN_HOUSEKEEPING_EVERY", default_value = "1h", value_parser = pause, value_name = "TIME")]
    pub housekeeping_every: Duration,
}

/// Traces of calls. The URL can hold a password by mistake, so it is never printed.
#[derive(Args, Clone, Debug)]
pub struct Traces {
    /// Where to send spans by OTLP over gRPC: http://HOST:PORT or https://HOST:PORT; none are
    /// made where this is absent
    #[arg(
        long,
        env = "STACKTOKEN_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
    /// Which share of calls is traced, 0 to 1, where the caller's `traceparent` does not say
    #[arg(long, env = "STACKTOKEN_TRACE_SAMPLE_RATIO", default_value_t = 0.01, value_parser = ratio, value_name = "RATIO")]
    pub trace_sample_ratio: f64,
}

/// Where the service listens.
#[derive(Args, Clone, Debug)]
pub struct Listen {
    /// Where to serve gRPC
    #[arg(
        long,
        env = "STACKTOKEN_LISTEN",
        default_value = "0.0.0.0:50051",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Where to serve metrics and probes over HTTP
    #[arg(
        long,
        env = "STACKTOKEN_ADMIN_LISTEN",
        default_value = "0.0.0.0:9464",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,
}

/// TLS on the gRPC port. The files are read again when they change.
#[derive(Args, Clone, Debug)]
pub struct TlsFlags {
    /// The server's certificate and those that signed it, in PEM; without it the port is
    /// plaintext
    #[arg(long, env = "STACKTOKEN_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate, in PEM
    #[arg(long, env = "STACKTOKEN_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The CAs whose client certificates count, in PEM: for the mtls entries of the issuers file
    #[arg(long, env = "STACKTOKEN_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 500ms, 5s or 24h".into())
}

/// How long a command waits for a server: some time, and not for ever.
///
/// # Errors
/// What was expected.
pub fn call_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_millis(1) && time <= Duration::from_hours(1) => Ok(time),
        _ => Err("expected a time from 1ms to 1h".into()),
    }
}

/// No more than one transaction a second, and not so rare that much is lost by a crash.
fn flush_every(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        every if every >= Duration::from_secs(1) && every <= Duration::from_mins(10) => Ok(every),
        _ => Err("expected a time from 1s to 10m".into()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1 such as 0.01".into()),
    }
}

fn hours(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_hours(1) => Ok(time),
        _ => Err("expected a time of at least 1h, such as 90d".into()),
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time >= Duration::from_millis(100) && time <= Duration::from_hours(24) => Ok(time),
        _ => Err("expected a time from 100ms to 24h".into()),
    }
}

/// Clocks that are kept by NTP differ by milliseconds; a minute is no clock.
fn skew(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        skew if skew >= Duration::from_millis(100) && skew <= Duration::from_mins(1) => Ok(skew),
        _ => Err("expected a time from 100ms to 1m".into()),
    }
}

/// A fifth of a second is about what reading four times within it, over a network, takes.
fn bound(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        bound if bound >= Duration::from_millis(200) && bound <= Duration::from_mins(1) => {
            Ok(bound)
        }
        _ => Err("expected a time from 200ms to 1m".into()),
    }
}
