//! stacktoken: management tokens for the stacks of a headless CMS.

pub mod app;
pub mod domain;
pub mod metrics;
pub mod store;
