//! TLS on the port: who is known by certificate, and what happens when the files change.

mod identity;
mod reload;
mod resumption;
