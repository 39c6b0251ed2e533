//! Limits on the calls and streams of one caller, of one connection and of one address.

use clap::Args;

use super::values::{count, number};

/// Per-caller, per-connection and per-address limits, so that no client can starve other clients.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Maximum number of calls of one caller in progress. Further calls are refused as OVERLOADED.
    /// Verdicts from the cache do not count [default: an eighth of --max-calls]
    #[arg(long, env = "STACKTOKEN_MAX_CALLS_PER_CALLER", value_name = "COUNT", value_parser = count::<usize>, help_heading = "Limits")]
    pub max_calls_per_caller: Option<usize>,
    /// Maximum number of calls in progress of one service with the introspect role. It is higher
    /// because a gateway is one caller for all traffic [default: half of --max-calls]
    #[arg(long, env = "STACKTOKEN_MAX_CALLS_PER_INTROSPECTOR", value_name = "COUNT", value_parser = number::<usize>, help_heading = "Limits")]
    pub max_calls_per_introspector: Option<usize>,
    /// Maximum number of calls on one connection that wait for their request message. Further calls
    /// are refused as OVERLOADED
    #[arg(long, env = "STACKTOKEN_MAX_WAITING_PER_CONNECTION", default_value_t = 32, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Limits")]
    pub max_waiting_per_connection: usize,
    /// Maximum number of calls from one address that wait for their request message. Further calls
    /// are refused as OVERLOADED
    #[arg(long, env = "STACKTOKEN_MAX_WAITING_PER_ADDRESS", default_value_t = 1024, value_name = "COUNT", value_parser = count::<usize>, help_heading = "Limits")]
    pub max_waiting_per_address: usize,
    /// Maximum number of open IntrospectionService.Watch streams of one caller. Further streams are
    /// refused as OVERLOADED [default: a quarter of --max-watches]
    #[arg(long, env = "STACKTOKEN_MAX_WATCHES_PER_CALLER", value_name = "COUNT", value_parser = number::<usize>, help_heading = "Limits")]
    pub max_watches_per_caller: Option<usize>,
    /// Maximum number of open Health.Watch streams from one address. Further streams are refused as
    /// OVERLOADED. For reflection streams, one address may always use a quarter of the total
    /// [default: a quarter of --max-watches]
    #[arg(long, env = "STACKTOKEN_MAX_WATCHES_PER_ADDRESS", value_name = "COUNT", value_parser = number::<usize>, help_heading = "Limits")]
    pub max_watches_per_address: Option<usize>,
}
