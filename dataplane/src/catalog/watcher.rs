//! Follows a folder of mapping documents and publishes what it says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use super::publisher::{Mapping, Publisher};
use crate::metrics::CatalogMetrics;

/// How long more changes are waited for after the first: the operator writes several files one after the
/// other.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often the folder is looked at without an event: some file systems have none, and events can be lost.
const RESCAN: Duration = Duration::from_secs(5);
/// How often a folder that isn't there is looked for.
const RETRY: Duration = Duration::from_millis(500);
const NO_ACCESS: &str = "there is no flutecast-access.yaml in the mapping folder yet";

/// Follows `path` until `stop`. The folder may come later.
#[must_use = "someone has to watch the task"]
pub fn watch_folder(
    path: &Path,
    metrics: CatalogMetrics,
    stop: CancellationToken,
) -> (Mapping, JoinHandle<()>) {
    let (publisher, mapping) = Publisher::new(NO_ACCESS, metrics);
    let folder = Folder::new(path);
    let handle = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(folder, publisher) => {}
        }
    });
    (mapping, handle)
}

/// Ends only when reading panicked, which ends the process.
async fn follow(mut folder: Folder, mut publisher: Publisher) {
    let (changed, mut changes) = mpsc::channel(1);
    let mut events = Events { changed, watched: None };
    loop {
        // Before reading, so that nothing falls between the two.
        events.attach(folder.path());
        let path = folder.path().to_owned();
        let result = spawn_blocking(move || {
            let reading = folder.read();
            (folder, reading)
        });
        let Ok((back, reading)) = result.await else { return };
        folder = back;
        let pause = match reading {
            Ok(reading) => {
                if let Some(reading) = reading {
                    let Ok(back) = spawn_blocking(move || publisher.publish(reading)).await else { return };
                    publisher = back;
                }
                RESCAN
            }
            Err(error) => {
                let message = format!("the mapping folder {} can't be read: {error}", path.display());
                publisher.unreachable("mapping folder", message);
                RETRY
            }
        };
        tokio::select! {
            _ = changes.recv() => sleep(DEBOUNCE).await,
            () = sleep(pause) => {}
        }
        // What happened up to here is seen by the reading that follows.
        while changes.try_recv().is_ok() {}
    }
}

/// The file system's events for one folder.
struct Events {
    changed: mpsc::Sender<()>,
    watched: Option<(RecommendedWatcher, Identity)>,
}

impl Events {
    /// Sees to it that the folder that is at `path` now is the one that is watched.
    fn attach(&mut self, path: &Path) {
        let there = Identity::of(path);
        if there.is_some() && self.watched.as_ref().map(|(_, identity)| *identity) == there {
            return;
        }
        self.watched = None;
        let Some(identity) = there else { return };
        let changed = self.changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(|event| !changes_something(event.kind)) {
                return;
            }
            // A full channel says already that something changed.
            let _ = changed.try_send(());
        });
        let attached = watcher.and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match attached {
            Ok(watcher) => self.watched = Some((watcher, identity)),
            Err(error) => {
                tracing::warn!(%error, "the folder's events can't be had; it is looked at every {} s", RESCAN.as_secs());
            }
        }
    }
}

/// Our own reading must not be taken for a change.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Tells a folder from another one that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).ok().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|_| Self(0, 0))
    }
}
