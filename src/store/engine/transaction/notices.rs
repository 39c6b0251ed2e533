//! Warnings that the database sends with a response. The driver does not return them, it only logs
//! them. So a `tracing` subscriber catches them while the statement is polled.
//!
//! PostgreSQL reports success for a COMMIT whose wait for the standby was cancelled, with a warning
//! (SQLSTATE 01000) that only this server has it. It also warns if BEGIN finds an open transaction,
//! or COMMIT finds none.

use std::{cell::Cell, future::poll_fn, pin::pin, sync::LazyLock};

use tracing::{
    Dispatch, Event, Id, Level, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Record},
    subscriber::Interest,
};

/// The target under which the driver logs notices.
const TARGET: &str = "sqlx::postgres::notice";

thread_local! {
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

static WATCH: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Watch));

/// Runs a future, and returns its output and whether the database sent a warning meanwhile.
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

/// A subscriber that records warnings of the database, and nothing else.
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
