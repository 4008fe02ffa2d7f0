//! From a cluster, or what is left of one, to nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Node, Place, cgroup, node, sysctl};

/// Another process may be bringing this cluster up, building its programs first.
const LOCK: Duration = Duration::from_secs(30 * 60);

/// Ends the cluster and removes everything that belonged to it. Says whether there was anything.
///
/// # Errors
/// What can't be ended or removed.
pub async fn take_down(place: &Place) -> anyhow::Result<bool> {
    let held = lock(place).await?;
    let was_there = place.folder().exists();
    remove_all(place).await?;
    drop(held);
    // Whoever waits for the lock holds the same file without a name, which locks nothing: it looks at what is there first.
    let _ = fs::remove_file(place.lock_file());
    if let Some(all) = place.folder().parent() {
        // Another slot's cluster may be in there.
        let _ = fs::remove_dir(all);
    }
    Ok(was_there)
}

/// Held while a cluster comes or goes.
pub(super) async fn lock(place: &Place) -> anyhow::Result<fs::File> {
    let path = place.lock_file();
    let parent = path.parent().context("a lock file has a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    let locking = tokio::task::spawn_blocking(move || {
        let file = fs::File::create(&path).with_context(|| format!("{}", path.display()))?;
        file.lock()?;
        anyhow::Ok(file)
    });
    match tokio::time::timeout(LOCK, locking).await {
        Ok(file) => file?,
        Err(_) => bail!("another process brings this cluster up or down for {LOCK:?}"),
    }
}

/// The same without the lock; nothing happens when there is nothing.
pub(super) async fn remove_all(place: &Place) -> anyhow::Result<()> {
    if let Some(node) = Node::running(place) {
        node.end().await?;
    }
    node::link_is_gone(place).await?;
    cgroup::remove(place).await?;
    for folder in made_on_host(place) {
        // Not ours if somebody has put something there since.
        let _ = fs::remove_dir(folder);
    }
    if place.folder().exists() {
        fs::remove_dir_all(place.folder()).with_context(|| format!("{}", place.folder().display()))?;
    }
    sysctl::restore(place)
}

fn list(place: &Place) -> PathBuf {
    place.path("host-folders.json")
}

fn made_on_host(place: &Place) -> Vec<PathBuf> {
    let text = fs::read_to_string(list(place)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Makes a folder of the host over which the node mounts one of its own, and remembers what was made: the innermost first.
pub(super) fn make_host_folder(place: &Place, folder: &Path) -> anyhow::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
    let all: Vec<_> = missing.into_iter().chain(made_on_host(place)).collect();
    fs::write(list(place), serde_json::to_string(&all)?)?;
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))
}
