//! Tests the HTTP port: the OAuth endpoints and the routes of the CMS.

mod attacks;
mod cms;
mod connections;
mod documents;
mod introspect;
mod outages;
mod refusals;
mod revoke;
mod sent_back;
mod tls;
mod token;
mod token_refused;
mod two_changes;
