//! Log lines, and spans of calls for a collector. This module knows nothing of tokens.

pub mod context;
pub mod export;
pub mod logs;
pub mod output;
pub mod sampling;
pub mod traces;
