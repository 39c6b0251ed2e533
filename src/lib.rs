//! stacktoken: management tokens for the stacks of a headless CMS.

pub mod auth;
pub mod domain;
