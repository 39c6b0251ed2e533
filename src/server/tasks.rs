//! Background tasks that must run until shutdown. If one of them ends earlier or panics, this is an
//! error, which ends the process.

use std::{panic, time::Duration};

use tokio::task::JoinSet;

use super::ServeError;

/// How long a task runs before it panics because a test demands it.
const FAILS_AFTER: Duration = Duration::from_millis(200);

/// A set of background tasks. Dropping it aborts the tasks.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<&'static str>,
    failing: Option<&'static str>,
}

impl Tasks {
    /// Creates an empty set. The task named `failing` will panic.
    pub fn failing(failing: Option<&'static str>) -> Self {
        Self {
            running: JoinSet::new(),
            failing,
        }
    }

    pub fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = unless_failing(name, self.failing, task);
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until any task ends, and returns the end as an error.
    pub async fn next_end(&mut self) -> ServeError {
        match self.running.join_next().await {
            Some(Ok(name)) => ServeError::TaskEnded(name),
            Some(Err(failed)) => failed.into(),
            None => ServeError::TaskEnded("all"),
        }
    }
}

/// Runs a task. If a test named it in `failing`, it panics soon after its start instead, as a
/// mistake in its code would.
pub(super) async fn unless_failing<T>(
    name: &'static str,
    failing: Option<&'static str>,
    task: impl Future<Output = T>,
) -> T {
    if failing == Some(name) {
        tokio::time::sleep(FAILS_AFTER).await;
        panic::resume_unwind(Box::new("a test let this task panic"));
    }
    task.await
}
