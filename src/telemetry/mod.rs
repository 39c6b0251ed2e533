//! Writes log lines, and exports spans of calls to a collector. This module knows nothing about
//! tokens.

pub mod context;
pub mod export;
pub mod logs;
pub mod output;
pub mod sampling;
pub mod traces;
