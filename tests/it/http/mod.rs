//! The HTTP port: OAuth endpoints and the routes of the CMS.

mod attacks;
mod cms;
mod documents;
mod introspect;
mod outages;
mod refusals;
mod revoke;
mod tls;
