//! The mapping from a folder: watches it and publishes its documents.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::CatalogMetrics;
use super::publisher::{CatalogPublisher, Mapping};

mod files;
#[cfg(test)]
mod tests;

use files::FolderReader;

/// Further changes are collected for this long after the first: the operator writes several files in a row.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Interval of reads without an event: some file systems have no events, and events can be lost.
const RESCAN: Duration = Duration::from_secs(5);
/// Interval of looking for a missing folder.
const RETRY: Duration = Duration::from_millis(500);
const NO_ACCESS: &str = "there is no flutecast-access.yaml in the mapping folder yet";

/// Watches the folder until `stop` is cancelled. It need not exist yet.
#[must_use = "the task has to be supervised"]
pub(crate) fn watch_folder(
    path: &Path,
    metrics: CatalogMetrics,
    stop: CancellationToken,
) -> (Mapping, JoinHandle<()>) {
    let (publisher, mapping) = CatalogPublisher::new(NO_ACCESS, metrics);
    let folder = FolderReader::new(path);
    let follow = follow(folder, publisher);
    let handle =
        tokio::spawn(async move { stop.run_until_cancelled_owned(follow).await.unwrap_or_default() });
    (mapping, handle)
}

/// Returns only if reading panicked, which ends the process.
async fn follow(mut folder: FolderReader, mut publisher: CatalogPublisher) {
    let (changed, mut changes) = mpsc::channel(1);
    let mut events = FolderEvents { changed, watched: None };
    loop {
        // Before reading, so that no change is missed in between.
        events.attach(&folder.path);
        let work = spawn_blocking(move || {
            let pause = match folder.read() {
                Ok(reading) => {
                    reading.into_iter().for_each(|reading| publisher.publish(reading));
                    RESCAN
                }
                Err(error) => {
                    let path = folder.path.display();
                    let message = format!("the mapping folder {path} can't be read: {error}");
                    publisher.unreachable("mapping folder", message);
                    RETRY
                }
            };
            (folder, publisher, pause)
        });
        let Ok(back) = work.await else { return };
        let pause;
        (folder, publisher, pause) = back;
        tokio::select! {
            _ = changes.recv() => sleep(DEBOUNCE).await,
            () = sleep(pause) => {}
        }
        // Changes up to here are seen by the next reading.
        while changes.try_recv().is_ok() {}
    }
}

struct FolderEvents {
    changed: mpsc::Sender<()>,
    watched: Option<(RecommendedWatcher, FolderIdentity)>,
}

impl FolderEvents {
    /// Watches the folder that is at `path` now, unless it is watched already.
    fn attach(&mut self, path: &Path) {
        let there = FolderIdentity::of(path);
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
            // If the channel is full, a change is already pending.
            let _ = changed.try_send(());
        });
        let attached = watcher.and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match attached {
            Ok(watcher) => self.watched = Some((watcher, identity)),
            Err(error) => {
                let period = RESCAN.as_secs();
                tracing::warn!(%error, "no events of the mapping folder; it is read every {period} s");
            }
        }
    }
}

/// Returns whether an event means a change; reading causes events too.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// Tells a folder from another one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FolderIdentity(u64, u64);

impl FolderIdentity {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}
