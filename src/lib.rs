//! stacktoken: management tokens for the stacks of a headless CMS.

pub mod app;
pub mod auth;
pub mod domain;
pub mod grpc;
pub mod metrics;
pub mod store;
