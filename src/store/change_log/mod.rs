//! The change log, with a row for every change that can alter a verdict (R12).

pub(in crate::store) mod append;
pub(in crate::store) mod poll;
