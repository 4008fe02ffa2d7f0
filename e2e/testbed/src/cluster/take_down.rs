//! From a cluster, or what is left of one, to nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{ClusterDir, Node, cgroup, node, sysctl};
use flutecast_testkit::tools_folder;

/// Another process may be bringing this cluster up, building its programs first.
const LOCK: Duration = Duration::from_secs(30 * 60);

/// Ends the cluster and removes everything that belonged to it. Says whether there was anything.
///
/// # Errors
/// If something can't be ended or removed.
pub async fn take_down(dir: &ClusterDir) -> anyhow::Result<bool> {
    let _held = lock().await?;
    let was_there = dir.folder().exists();
    remove_all(dir).await?;
    if let Some(all) = dir.folder().parent() {
        // Another slot's cluster may be in there.
        let _ = fs::remove_dir(all);
    }
    Ok(was_there)
}

/// Held while a cluster comes or goes, whichever: they share what they change of the host. The file stays, as
/// one that is removed would be two locks for a moment.
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
pub(super) async fn remove_all(dir: &ClusterDir) -> anyhow::Result<()> {
    if let Some(node) = Node::running(dir) {
        node.end().await?;
    }
    node::link_is_gone(dir).await?;
    cgroup::remove(dir).await?;
    if dir.folder().exists() {
        fs::remove_dir_all(dir.folder()).with_context(|| format!("{}", dir.folder().display()))?;
    }
    let folders = made_on_host(dir);
    // Another cluster still needs what follows; one with another cache folder shows by what it has mounted.
    if dir.others().any(|other| other.folder().exists()) || are_mounted_over(&folders) {
        return Ok(());
    }
    for folder in folders {
        // Not ours if somebody has put something there since.
        let _ = fs::remove_dir(folder);
    }
    let _ = fs::remove_file(list(dir));
    sysctl::restore(dir)
}

/// Returns whether any process has something mounted over one of these folders. Linux lets go of such mounts,
/// without a word, when the folder is removed in another mount namespace: the kubelet of the other cluster
/// would lose the volumes of its pods.
fn are_mounted_over(folders: &[PathBuf]) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        // Empty for what is no process, or has just ended.
        .map(|process| fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default())
        // The fifth field is the mount point (proc_pid_mountinfo(5)).
        .any(|mounts| {
            let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
            points.any(|point| folders.iter().any(|folder| folder.as_path() == Path::new(point)))
        })
}

/// One list for all clusters with this cache folder.
fn list(dir: &ClusterDir) -> PathBuf {
    dir.folder().with_file_name("host-folders.json")
}

fn made_on_host(dir: &ClusterDir) -> Vec<PathBuf> {
    let text = fs::read_to_string(list(dir)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Makes a folder of the host over which the node mounts one of its own, and remembers what was made: the
/// innermost first.
pub(super) fn make_host_folder(dir: &ClusterDir, folder: &Path) -> anyhow::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
    let all: Vec<_> = missing.into_iter().chain(made_on_host(dir)).collect();
    fs::write(list(dir), serde_json::to_string(&all)?)?;
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_others_have_mounted_over_a_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        assert!(!are_mounted_over(&folders));
        // A node's mounts are in a namespace of its own, too. A user that isn't root gets one in which it is.
        let mut node = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                "mount -n -t tmpfs none \"$0\" && echo there && cat",
            ])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(node.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "there\n");
        assert!(are_mounted_over(&folders));
        assert!(!are_mounted_over(&[folder.path().join("below")]));
        drop(node.stdin.take());
        assert!(node.wait().unwrap().success());
        assert!(!are_mounted_over(&folders));
    }
}
