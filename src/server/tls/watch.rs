//! File system notifications for the TLS files, where the platform supports them.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::TlsFiles;

/// How long to wait after a change notification, because a certificate and its key are written in
/// several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches the folders that contain the files, so that renames and changes of symbolic links are
/// noticed too.
pub(super) struct Watch {
    heard: Arc<Notify>,
    /// The file watcher. Dropping it stops the notifications.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Starts to watch the folders. If the platform cannot watch them, the files are only polled.
    pub fn over(files: &TlsFiles) -> Self {
        let heard = Arc::new(Notify::new());
        let changed = heard.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Access events are ignored, because our own reads cause them.
            if event.map_or(true, |event| !event.kind.is_access()) {
                changed.notify_one();
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
            tracing::warn!(%error, "TLS files are only polled, because their directories cannot be watched");
        }
        Self {
            heard,
            _watcher: watching.ok(),
        }
    }

    /// Waits until a change is notified, for at most `time`.
    pub async fn changed_within(&self, time: Duration) {
        let heard = tokio::time::timeout(time, self.heard.notified()).await;
        if heard.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}
