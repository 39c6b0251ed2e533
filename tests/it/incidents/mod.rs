//! Tests the RPCs for incident response, which revoke many tokens at once and report a leaked
//! secret.

mod previewed;
mod repeated;
mod report_leaked;
mod revoke_all;
