//! Background tasks that run until shutdown. If any of them ends earlier, this is an error.

use tokio::task::JoinSet;

use super::ServeError;

/// Set of background tasks. Dropping the set aborts the tasks.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<&'static str>);

impl Tasks {
    pub fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until a task ends, and returns this as an error.
    pub async fn next_end(&mut self) -> ServeError {
        match self.0.join_next().await {
            Some(Ok(name)) => ServeError::TaskEnded(name),
            Some(Err(failed)) => failed.into(),
            None => ServeError::TaskEnded("all"),
        }
    }
}
