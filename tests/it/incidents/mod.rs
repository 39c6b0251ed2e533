//! The verbs for an incident: many tokens revoked at once, and a secret reported as leaked.

mod report_leaked;
mod revoke_all;
