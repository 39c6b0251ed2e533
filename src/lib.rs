//! stacktoken: management tokens for the stacks of a headless CMS.

pub mod domain;
pub mod store;
