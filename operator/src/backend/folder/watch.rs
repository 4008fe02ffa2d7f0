//! Says when a folder may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long to wait for more changes after the first: an editor writes, renames and removes within
/// milliseconds.
const SETTLE: Duration = Duration::from_millis(100);
/// How often to look without being told: for file systems that tell nothing, such as network mounts, and for
/// folders behind symbolic links.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// A watch over one folder.
pub struct FolderWatch {
    changes: mpsc::Receiver<()>,
    /// A change was heard of and is waiting for others to settle.
    heard: bool,
    /// Dropping it ends the watch.
    _watcher: Option<RecommendedWatcher>,
}

impl FolderWatch {
    /// Watches `root`. Where the system can't, changes are found by looking every few seconds.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        // One message is enough to say that there is something to see.
        let (tell, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            let _full_is_fine = tell.try_send(());
        })
        .and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        })
        .inspect_err(|error| tracing::warn!(folder = %root.display(), %error, "can't watch; looking every few seconds instead"))
        .ok();
        Self { changes, heard: false, _watcher: watcher }
    }

    /// Waits until it is time to look again. When it is cancelled, what was heard is not forgotten.
    pub async fn changed(&mut self) {
        let look_anyway = tokio::time::sleep(LOOK_ANYWAY);
        tokio::pin!(look_anyway);
        if !self.heard {
            tokio::select! {
                Some(()) = self.changes.recv() => self.heard = true,
                () = &mut look_anyway => return,
            }
        }
        tokio::time::sleep(SETTLE).await;
        while self.changes.try_recv().is_ok() {}
        self.heard = false;
    }
}
