//! What one caller, one connection and one address may take of the places of calls.

use clap::Args;

/// Shares, so that nobody can take what others need.
#[derive(Args, Clone, Copy, Debug)]
pub struct Shares {
    /// How many calls of one caller may be at work at once; more are answered OVERLOADED. Cached
    /// verdicts do not count [default: an eighth of --max-calls]
    #[arg(long, env = "STACKTOKEN_MAX_CALLS_PER_CALLER", value_name = "COUNT")]
    pub max_calls_per_caller: Option<usize>,
    /// The same for a service with the introspect role: a gateway is one caller for all traffic
    /// [default: half of --max-calls]
    #[arg(
        long,
        env = "STACKTOKEN_MAX_CALLS_PER_INTROSPECTOR",
        value_name = "COUNT"
    )]
    pub max_calls_per_introspector: Option<usize>,
    /// How many calls of one connection may wait for their message at once; more are answered
    /// OVERLOADED
    #[arg(
        long,
        env = "STACKTOKEN_MAX_WAITING_PER_CONNECTION",
        default_value_t = 32,
        value_name = "COUNT"
    )]
    pub max_waiting_per_connection: usize,
    /// The same for all connections from one address
    #[arg(
        long,
        env = "STACKTOKEN_MAX_WAITING_PER_ADDRESS",
        default_value_t = 1024,
        value_name = "COUNT"
    )]
    pub max_waiting_per_address: usize,
    /// Streams of IntrospectionService.Watch that one caller may have open at once; further ones are
    /// refused as OVERLOADED [default: a quarter of --max-watches]
    #[arg(long, env = "STACKTOKEN_MAX_WATCHES_PER_CALLER", value_name = "COUNT")]
    pub max_watches_per_caller: Option<usize>,
    /// Streams of Health.Watch that one peer address may have open at once; further ones are refused as
    /// OVERLOADED. For reflection that limit is always a quarter of all [default: a quarter of
    /// --max-watches]
    #[arg(long, env = "STACKTOKEN_MAX_WATCHES_PER_ADDRESS", value_name = "COUNT")]
    pub max_watches_per_address: Option<usize>,
}
