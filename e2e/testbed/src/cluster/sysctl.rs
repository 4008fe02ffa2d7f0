//! Settings of the host's kernel that a node needs or changes. The old values are saved, and restored at the
//! end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ClusterDir;

/// Minimum values. Each pod and each component watches files, and Linux allows only 128 `inotify` instances
/// per user by default.
const WANTED: [(&str, u64); 1] = [("fs/inotify/max_user_instances", 8192)];
/// Settings that the kubelet changes.
const TOUCHED: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// Returns the file with the old values, which all clusters of this machine share.
fn kept(dir: &ClusterDir) -> PathBuf {
    dir.folder().with_file_name("sysctl-before.json")
}

/// Saves the current values unless another cluster has, and raises values that are too low.
///
/// # Errors
/// If a value can't be read or set.
pub(super) fn prepare(dir: &ClusterDir) -> anyhow::Result<()> {
    let names = WANTED.iter().map(|(name, _)| *name).chain(TOUCHED);
    let mut before = BTreeMap::new();
    for name in names {
        // Some kernels lack some of them, and the kubelet skips those.
        if let Ok(value) = fs::read_to_string(file(name)) {
            before.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    if !kept(dir).exists() {
        fs::write(kept(dir), serde_json::to_string_pretty(&before)?)?;
    }
    for (name, wanted) in WANTED {
        let enough =
            before.get(name).and_then(|value| value.parse::<u64>().ok()).is_some_and(|value| value >= wanted);
        if !enough {
            fs::write(file(name), wanted.to_string()).with_context(|| format!("sysctl {name}={wanted}"))?;
        }
    }
    Ok(())
}

/// Restores the values that [`prepare`] saved. No cluster may be up any more.
///
/// # Errors
/// If a value can't be set.
pub(super) fn restore(dir: &ClusterDir) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(kept(dir)) else { return Ok(()) };
    let before: BTreeMap<String, String> = serde_json::from_str(&text).context("sysctl-before.json")?;
    for (name, value) in before {
        if fs::read_to_string(file(&name)).is_ok_and(|now| now.trim() != value) {
            fs::write(file(&name), &value).with_context(|| format!("sysctl {name}={value}"))?;
        }
    }
    fs::remove_file(kept(dir)).context("sysctl-before.json")
}
