//! Settings of the whole kernel that a node needs or changes. What they were is kept, and set again at the
//! end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ClusterDir;

/// Each pod and each component watches files; Linux allows 128 watchers per user (`fs.inotify`) unless told
/// otherwise.
const WANTED: [(&str, u64); 1] = [("fs/inotify/max_user_instances", 8192)];
/// The kubelet sets these to its own liking.
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

/// Returns the file with the values from before: one for all clusters of this machine.
fn kept(dir: &ClusterDir) -> PathBuf {
    dir.folder().with_file_name("sysctl-before.json")
}

/// Keeps what is, unless another cluster did, and raises what is too low.
///
/// # Errors
/// If a value can't be read or set.
pub(super) fn prepare(dir: &ClusterDir) -> anyhow::Result<()> {
    let names = WANTED.iter().map(|(name, _)| *name).chain(TOUCHED);
    let mut before = BTreeMap::new();
    for name in names {
        // Some kernels lack some of them; the kubelet then does without.
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

/// Sets everything back to what [`prepare`] found. No cluster may need it any more.
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
