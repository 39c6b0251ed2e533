//! Detects warnings that the database sends with a response. The driver does not return warnings,
//! it only logs them. Therefore a `tracing` subscriber catches them while the statement is polled.
//!
//! If the wait for the standby is cancelled during a COMMIT, PostgreSQL reports success, with a
//! warning (SQLSTATE 01000) that the transaction is committed only on this server. It also warns if
//! BEGIN finds an open transaction, or COMMIT finds none.

use std::{cell::Cell, future::poll_fn, pin::pin, sync::LazyLock};

use tracing::{
    Dispatch, Event, Id, Level, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Record},
    subscriber::Interest,
};

/// The log target to which the driver writes notices.
const TARGET: &str = "sqlx::postgres::notice";

thread_local! {
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

static WATCH: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Watch));

/// Runs a future. Returns its output, and whether the database sent a warning while it ran.
pub async fn watched<F: Future>(work: F) -> (F::Output, bool) {
    let mut work = pin!(work);
    let mut warned = false;
    let output = poll_fn(|task| {
        WARNED.set(false);
        let polled = tracing::dispatcher::with_default(&WATCH, || work.as_mut().poll(task));
        warned |= WARNED.get();
        polled
    })
    .await;
    (output, warned)
}

/// A subscriber that records only whether the database sent a warning.
struct Watch;

fn is_warning(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && *metadata.level() <= Level::WARN
}

impl Subscriber for Watch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == TARGET {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_warning(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        if is_warning(event.metadata()) {
            WARNED.set(true);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
