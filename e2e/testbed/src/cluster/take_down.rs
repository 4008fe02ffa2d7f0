//! Removes a cluster, or what is left of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{ClusterDir, Node, cgroup, node, sysctl};
use flutecast_testkit::tools_folder;

/// Time limit for the lock: another process may be building the cluster's programs.
const LOCK: Duration = Duration::from_secs(30 * 60);

/// Ends the cluster and removes everything that belonged to it. Returns whether there was anything.
///
/// # Errors
/// If something can't be ended or removed.
pub async fn take_down(dir: &ClusterDir) -> anyhow::Result<bool> {
    let _held = lock().await?;
    let was_there = dir.folder().exists();
    remove_all(dir).await?;
    if let Some(all) = dir.folder().parent() {
        // Fails if another slot's cluster is in it, which is fine.
        let _ = fs::remove_dir(all);
    }
    Ok(was_there)
}

/// Locks the bring-up and take-down of all clusters of this machine, because they share settings of the host.
/// The file is never removed: removing it would allow two locks at once.
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

/// Removes the cluster without locking. Does nothing if there is none.
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
    // The rest is shared with other clusters. Those with another cache folder are recognised by their mounts.
    if dir.others().any(|other| other.folder().exists()) || are_mounted_over(&folders) {
        return Ok(());
    }
    for folder in folders {
        // Fails if the folder isn't empty: then others use it by now.
        let _ = fs::remove_dir(folder);
    }
    let _ = fs::remove_file(list(dir));
    sysctl::restore(dir)
}

/// Returns whether any process has a mount over one of these folders. Linux silently detaches such mounts
/// when the folder is removed in another mount namespace, so the other cluster's kubelet would lose the
/// volumes of its pods.
fn are_mounted_over(folders: &[PathBuf]) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        // Empty if the entry isn't a process, or the process has just ended.
        .map(|process| fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default())
        // The fifth field is the mount point (proc_pid_mountinfo(5)).
        .any(|mounts| {
            let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
            points.any(|point| folders.iter().any(|folder| folder.as_path() == Path::new(point)))
        })
}

/// Returns the file that lists the folders made on the host, shared by all clusters with this cache folder.
fn list(dir: &ClusterDir) -> PathBuf {
    dir.folder().with_file_name("host-folders.json")
}

fn made_on_host(dir: &ClusterDir) -> Vec<PathBuf> {
    let text = fs::read_to_string(list(dir)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Creates a folder of the host over which the node mounts its own, and records the created folders,
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
    fn mounts_of_other_namespaces_over_a_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        assert!(!are_mounted_over(&folders));
        // A node's mounts are in a mount namespace of its own. The user namespace makes this work without
        // root.
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
