//! Reports that a folder may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// The wait for more changes after the first: an editor writes, renames and removes within milliseconds.
const SETTLE: Duration = Duration::from_millis(100);
/// The interval at which a change is reported without an event: for file systems that have none, such as
/// network mounts, and for folders behind symbolic links.
const POLL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub(crate) struct MayHaveChanged;

/// Watches `root`. Where the system can't, it is polled only. Returns the changes, and the task that reports
/// them.
pub(crate) fn watch(root: &Path) -> (mpsc::Receiver<MayHaveChanged>, impl Future<Output = ()> + use<>) {
    // One message is enough to say that there is something to see.
    let (event, mut events) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |change: notify::Result<notify::Event>| {
        if !change.is_ok_and(|change| change.kind.is_access()) {
            let _full_is_fine = event.try_send(());
        }
    })
    .and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    })
    .inspect_err(|error| {
        tracing::warn!(folder = %root.display(), %error, "can't watch; looking every few seconds instead");
    })
    .ok();
    let (changes, receiver) = mpsc::channel(1);
    let forward = async move {
        let _keeps_watching = watcher;
        loop {
            if let Ok(Some(())) = tokio::time::timeout(POLL, events.recv()).await {
                tokio::time::sleep(SETTLE).await;
                while events.try_recv().is_ok() {}
            }
            if changes.send(MayHaveChanged).await.is_err() {
                return;
            }
        }
    };
    (receiver, forward)
}
