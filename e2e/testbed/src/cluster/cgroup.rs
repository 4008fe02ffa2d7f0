//! The cgroup of all pods. It is created before the kubelet starts, and removed after the last process has
//! ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::ClusterDir;
use flutecast_testkit::wait_until;

/// Time limit for the kernel to release the last process.
const EMPTY: Duration = Duration::from_secs(20);
/// Controllers of version 1 that the kubelet requires.
const NEEDED: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
/// Controllers of version 2 that the kubelet requires. `cpu` includes what `cpuacct` was.
const NEEDED_V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A mounted cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    folder: PathBuf,
    /// Version 1: its controllers. `None` in version 2, which lists them in `cgroup.controllers`.
    controllers: Option<Vec<String>>,
}

/// Parses /proc/mounts.
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let [_, folder, kind, options, ..] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
            let controllers = match kind {
                "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
                "cgroup2" => None,
                _ => return None,
            };
            Some(Hierarchy { folder: folder.into(), controllers })
        })
        .collect()
}

fn mounted() -> anyhow::Result<Vec<Hierarchy>> {
    Ok(hierarchies(&fs::read_to_string("/proc/mounts").context("/proc/mounts")?))
}

/// Checks that the kubelet's controllers are available.
///
/// # Errors
/// If a controller is missing (the error names it), or no cgroup can be created.
pub(super) fn check() -> anyhow::Result<()> {
    let mounted = mounted()?;
    ensure!(!mounted.is_empty(), "no cgroups are mounted (at /sys/fs/cgroup)");
    if mounted.iter().any(|hierarchy| hierarchy.controllers.is_some()) {
        let has = |name: &str| {
            mounted
                .iter()
                .filter_map(|it| it.controllers.as_ref())
                .flatten()
                .any(|controller| controller == name)
        };
        if let Some(missing) = NEEDED.into_iter().find(|name| !has(name)) {
            bail!("the cgroup controller {missing} isn't mounted (cgroup version 1)");
        }
    } else {
        for Hierarchy { folder, .. } in &mounted {
            let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
            if let Some(missing) =
                NEEDED_V2.into_iter().find(|name| !controllers.split_whitespace().any(|it| it == *name))
            {
                bail!(
                    "{} doesn't offer the cgroup controller {missing} (cgroup version 2)",
                    folder.display()
                );
            }
        }
    }
    for Hierarchy { folder, .. } in &mounted {
        let probe = folder.join(format!("flutecast-probe-{}", std::process::id()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).with_context(|| {
            format!("no cgroup can be made in {} (a container needs --privileged)", folder.display())
        })?;
    }
    Ok(())
}

/// Creates the cluster's cgroup in each hierarchy.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn make(dir: &ClusterDir) -> anyhow::Result<()> {
    for Hierarchy { folder, controllers } in mounted()? {
        let own = folder.join(dir.cgroup());
        match &controllers {
            Some(controllers) => {
                create(&own)?;
                if controllers.iter().any(|name| name == "cpuset") {
                    // In a new cgroup these are empty, and no process may enter it until they are set.
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        let all = fs::read_to_string(folder.join(file))?;
                        fs::write(own.join(file), all)
                            .with_context(|| format!("{}/{file}", own.display()))?;
                    }
                }
            }
            None => {
                offer(&folder)?;
                create(&own)?;
            }
        }
    }
    Ok(())
}

fn create(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))
}

/// Enables the root's controllers for its children (version 2 only).
fn offer(root: &Path) -> anyhow::Result<()> {
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    for name in NEEDED_V2.into_iter().filter(|name| controllers.split_whitespace().any(|it| it == *name)) {
        fs::write(root.join("cgroup.subtree_control"), format!("+{name}")).with_context(|| {
            format!(
                "{}: the controller {name} can't be handed on: processes are in this very cgroup",
                root.display()
            )
        })?;
    }
    Ok(())
}

/// Removes the cluster's cgroup and all below it in each hierarchy. No process may be left in it.
///
/// # Errors
/// If a process is still in it after 20 s.
pub(super) async fn remove(dir: &ClusterDir) -> anyhow::Result<()> {
    let own: Vec<_> = mounted()?.into_iter().map(|hierarchy| hierarchy.folder.join(dir.cgroup())).collect();
    wait_until("the end of the cluster's cgroups", EMPTY, async || {
        own.iter().try_for_each(|folder| remove_tree(folder))
    })
    .await
}

/// Removes the folders of a cgroup, innermost first. The kernel removes their files with them.
fn remove_tree(folder: &Path) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "proc /proc proc rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = hierarchies(mounts);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].folder, Path::new("/sys/fs/cgroup/cpu"));
        assert!(found[0].controllers.as_ref().unwrap().contains(&"cpuacct".to_owned()));
        assert_eq!(found[1], Hierarchy { folder: "/sys/fs/cgroup/unified".into(), controllers: None });
    }
}
