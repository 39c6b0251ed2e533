//! File system notifications for the TLS files, where the platform supports them.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::TlsFiles;

/// How long to let a change settle: a certificate and its key are written in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Watcher of the folders of the files, so that symbolic links and renames are seen too.
pub(super) struct Watch {
    heard: Arc<Notify>,
    /// Watches until it is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Starts to watch. If the platform cannot, the files are only polled.
    pub fn over(files: &TlsFiles) -> Self {
        let heard = Arc::new(Notify::new());
        let told = heard.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Ignores access events, which our own reads cause.
            if event.map_or(true, |event| !event.kind.is_access()) {
                told.notify_one();
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            let paths = [
                Some(&files.cert),
                Some(&files.key),
                files.client_ca.as_ref(),
            ];
            for path in paths.into_iter().flatten() {
                let folder = path.parent().filter(|folder| *folder != Path::new(""));
                let folder = folder.unwrap_or(Path::new("."));
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watching {
            tracing::warn!(%error, "TLS files are polled only: their folders cannot be watched");
        }
        Self {
            heard,
            _watcher: watching.ok(),
        }
    }

    /// Waits for a change, at most for `time`.
    pub async fn changed_within(&self, time: Duration) {
        let heard = tokio::time::timeout(time, self.heard.notified()).await;
        if heard.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}
