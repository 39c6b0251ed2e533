//! stacktoken: management tokens for the stacks of a headless CMS.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod metrics;
pub mod server;
pub mod store;
pub mod telemetry;
