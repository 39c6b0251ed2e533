//! Tasks that run for as long as the process: the end of any is an error.

use tokio::task::JoinSet;

use super::ServeError;

/// The tasks; they end with this.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<&'static str>);

impl Tasks {
    pub fn run(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until one ends, which none should.
    pub async fn next_end(&mut self) -> ServeError {
        match self.0.join_next().await {
            Some(Ok(name)) => ServeError::TaskEnded(name),
            Some(Err(failed)) => failed.into(),
            None => ServeError::TaskEnded("all"),
        }
    }
}
