//! Measures and traces the operations of the store.

use std::time::Duration;

use crate::{metrics::operations, store::Store, telemetry::traces::StoreSpan};

/// One operation of the store, from its first attempt to its last.
pub(in crate::store) struct Operation<'a> {
    store: &'a Store,
    name: &'static str,
    started: Duration,
    span: StoreSpan,
}

impl Store {
    /// Begins an operation, with a span if the current call is traced.
    pub(in crate::store) fn begin_operation(&self, name: &'static str) -> Operation<'_> {
        Operation {
            store: self,
            name,
            started: self.clock.monotonic(),
            span: StoreSpan::begin(self.dialect().system_name(), name),
        }
    }
}

impl Operation<'_> {
    /// Records how long the operation took, and the kind of the error if it failed.
    pub fn end(self, failure: Option<&'static str>) {
        let took = self.store.clock.monotonic().saturating_sub(self.started);
        operations::observe(self.store.dialect().system_name(), self.name, failure, took);
        self.span.end(failure);
    }
}
