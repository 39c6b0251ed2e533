//! The incident-response RPCs: revoking many tokens at once, and reporting a leaked secret.

mod previewed;
mod repeated;
mod report_leaked;
mod revoke_all;
