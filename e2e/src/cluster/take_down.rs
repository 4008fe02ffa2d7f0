//! From a cluster, or what is left of one, to nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Node, Place, cgroup, node, sysctl};
use crate::tools_folder;

/// Another process may be bringing this cluster up, building its programs first.
const LOCK: Duration = Duration::from_secs(30 * 60);

/// Ends the cluster and removes everything that belonged to it. Says whether there was anything.
///
/// # Errors
/// What can't be ended or removed.
pub async fn take_down(place: &Place) -> anyhow::Result<bool> {
    let _held = lock().await?;
    let was_there = place.folder().exists();
    remove_all(place).await?;
    if let Some(all) = place.folder().parent() {
        // Another slot's cluster may be in there.
        let _ = fs::remove_dir(all);
    }
    Ok(was_there)
}

/// Held while a cluster comes or goes, whichever: they share what they change of the host. The file stays, as one that is removed
/// would be two locks for a moment.
pub(super) async fn lock() -> anyhow::Result<fs::File> {
    let folder = tools_folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let path = folder.join("clusters.lock");
    let locking = tokio::task::spawn_blocking(move || {
        let file = fs::File::create(&path).with_context(|| format!("{}", path.display()))?;
        file.lock()?;
        anyhow::Ok(file)
    });
    match tokio::time::timeout(LOCK, locking).await {
        Ok(file) => file?,
        Err(_) => bail!("another process brings a cluster up or down for {LOCK:?}"),
    }
}

/// The same without the lock; nothing happens when there is nothing.
pub(super) async fn remove_all(place: &Place) -> anyhow::Result<()> {
    if let Some(node) = Node::running(place) {
        node.end().await?;
    }
    node::link_is_gone(place).await?;
    cgroup::remove(place).await?;
    if place.folder().exists() {
        fs::remove_dir_all(place.folder()).with_context(|| format!("{}", place.folder().display()))?;
    }
    if place.others().any(|other| other.folder().exists()) {
        // Another cluster still needs what follows.
        return Ok(());
    }
    for folder in made_on_host(place) {
        // Not ours if somebody has put something there since.
        let _ = fs::remove_dir(folder);
    }
    let _ = fs::remove_file(list(place));
    sysctl::restore(place)
}

/// One list for all clusters of this machine.
fn list(place: &Place) -> PathBuf {
    place.folder().with_file_name("host-folders.json")
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
