//! Tests TLS on the gRPC port: identification by certificate, and reloads of changed files.

mod identity;
mod reload;
mod resumption;
