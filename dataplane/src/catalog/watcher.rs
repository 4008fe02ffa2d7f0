//! Follows a folder of mapping documents and publishes what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::folder::{Folder, Reading};
use super::{Catalog, Problem, ProblemKind};
use crate::access::Access;
use crate::metrics::CatalogMetrics;

/// How long more changes are waited for after the first: the operator writes several files one after the other.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often the folder is looked at without an event: some file systems have none, and events can be lost.
const RESCAN: Duration = Duration::from_secs(5);
/// How often a folder that isn't there is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// What the mapping says, and who may read it; each changes as a whole.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The devices.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Who may read them. None: no access document was ever there.
    pub access: watch::Receiver<Option<Arc<Access>>>,
    /// Whether the two mean anything yet.
    pub state: watch::Receiver<MappingState>,
}

/// Whether the mapping was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingState {
    /// Not yet; the text says what is missing.
    Missing(String),
    /// Both the mapping and the access document were read.
    Loaded,
}

/// Follows `path` until `stop`. The folder may come later.
#[must_use = "someone has to watch the task"]
pub fn watch_folder(
    path: &Path,
    metrics: CatalogMetrics,
    stop: CancellationToken,
) -> (Mapping, JoinHandle<()>) {
    let (catalog_sender, catalog) = watch::channel(Arc::default());
    let (access_sender, access) = watch::channel(None);
    let (state_sender, state) =
        watch::channel(MappingState::Missing("the mapping was not read yet".to_owned()));
    let publisher = Publisher {
        catalog: catalog_sender,
        access: access_sender,
        state: state_sender,
        metrics,
        problems: BTreeSet::new(),
    };
    let folder = Folder::new(path);
    let handle = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(folder, publisher) => {}
        }
    });
    (Mapping { catalog, access, state }, handle)
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
                publisher.missing(&path, &error);
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

struct Publisher {
    catalog: watch::Sender<Arc<Catalog>>,
    access: watch::Sender<Option<Arc<Access>>>,
    state: watch::Sender<MappingState>,
    metrics: CatalogMetrics,
    problems: BTreeSet<Problem>,
}

impl Publisher {
    fn publish(mut self, reading: Reading) -> Self {
        let Reading { documents, access, mut problems } = reading;
        let before = self.catalog.borrow().clone();
        let (catalog, more) = Catalog::build_from(documents, Some(&before));
        problems.extend(more);
        self.report(problems);
        if !catalog.same(&before) {
            self.metrics.swapped(&catalog);
            tracing::info!(tenants = catalog.tenants.len(), "a newer mapping is served");
            self.catalog.send_replace(Arc::new(catalog));
        }
        // After the catalog, so that whoever is let in finds what is there.
        let access_is_there = access.is_some();
        self.access.send_if_modified(|current| {
            let same = match (&*current, &access) {
                (Some(current), Some(access)) => Arc::ptr_eq(current, access),
                (current, access) => current.is_none() && access.is_none(),
            };
            *current = access;
            !same
        });
        let state = if access_is_there {
            MappingState::Loaded
        } else {
            MappingState::Missing("there is no flutecast-access.yaml in the mapping folder yet".to_owned())
        };
        self.set_state(state);
        self
    }

    /// The folder can't be read. What was read of it before holds on.
    fn missing(&mut self, path: &Path, error: &std::io::Error) {
        let message = format!("the mapping folder {} can't be read: {error}", path.display());
        let loaded = *self.state.borrow() == MappingState::Loaded;
        if !loaded {
            self.set_state(MappingState::Missing(message.clone()));
        }
        self.report(vec![Problem {
            kind: ProblemKind::Unreadable,
            place: "mapping folder".to_owned(),
            message,
        }]);
    }

    fn set_state(&self, state: MappingState) {
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            if changed {
                match &state {
                    MappingState::Missing(reason) => tracing::warn!(reason, "the mapping is missing"),
                    MappingState::Loaded => tracing::info!("the mapping is loaded"),
                }
                *current = state;
            }
            changed
        });
    }

    /// Logs what is new, once.
    fn report(&mut self, problems: Vec<Problem>) {
        self.metrics.set_problems(&problems);
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in problems.difference(&self.problems) {
            let Problem { kind, place, message } = problem;
            tracing::warn!(kind = kind.as_str(), place, message, "a problem in the mapping");
        }
        for problem in self.problems.difference(&problems) {
            tracing::info!(
                kind = problem.kind.as_str(),
                place = problem.place,
                "a problem in the mapping is gone"
            );
        }
        self.problems = problems;
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
