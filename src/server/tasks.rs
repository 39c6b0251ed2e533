//! Background tasks that must run until shutdown. If one of them ends earlier, this is an error.

use tokio::task::JoinSet;

use super::ServeError;

/// A set of background tasks. Dropping it aborts the tasks.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<&'static str>);

impl Tasks {
    pub fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until any task ends, and returns the end as an error.
    pub async fn next_end(&mut self) -> ServeError {
        match self.0.join_next().await {
            Some(Ok(name)) => ServeError::TaskEnded(name),
            Some(Err(failed)) => failed.into(),
            None => ServeError::TaskEnded("all"),
        }
    }
}
