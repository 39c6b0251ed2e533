//! What the service says about its work: log lines, and spans of calls for a collector. A
//! leaf: it knows nothing of tokens.

pub mod context;
pub mod export;
pub mod logs;
pub mod output;
pub mod sampling;
pub mod traces;
