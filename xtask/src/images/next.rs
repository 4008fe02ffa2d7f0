//! This tree as its next version: another number, and one more optional field in a Device that both programs
//! know.
//!
//! Upgrades are tested between two versions that were both built from the same checkout. The second one's
//! sources are this tree's with the insertions below, in a folder of their own within cargo's target folder;
//! crates of others are built once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flutecast_testbed::release::version_after;

/// Lines that the next version has in front of a place in a file.
struct Insertion {
    file: &'static str,
    /// Text that the file holds once.
    place: &'static str,
    text: &'static str,
}

/// From the definition of the kind to what clients are told. The place stays; the text comes before it.
const INSERTIONS: [Insertion; 14] = [
    Insertion {
        file: "crds/src/device.rs",
        place: "    /// What the device sends: one channel for each kind of parameters.\n",
        text: "    /// Where the device stands, for people.\n    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n    \
               #[schemars(length(max = 64))]\n    pub location: Option<String>,\n",
    },
    Insertion {
        file: "operator/src/enrollment/template.rs",
        place: "            channels: template.channels.clone(),\n",
        text: "            location: None,\n",
    },
    Insertion {
        file: "operator/src/validate/device.rs",
        place: "    /// Its channels that can be used.\n",
        text: "    /// Where it stands.\n    pub location: Option<String>,\n",
    },
    Insertion {
        file: "operator/src/validate/device.rs",
        place: " channels } = &device.spec;",
        text: " location,",
    },
    Insertion {
        file: "operator/src/validate/device.rs",
        place: " channels };\n    Ok(Checked",
        text: " location: location.clone(),",
    },
    Insertion {
        file: "operator/src/build/devices.rs",
        place: "            labels: claimed.device.meta.labels.clone(),\n",
        text: "            location: claimed.device.location.clone(),\n",
    },
    Insertion {
        file: "libs/contract/src/document/mod.rs",
        place: "    /// The device's channels, by name. Many devices have the same.\n",
        text: "    /// Where it stands.\n    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n    pub location: Option<String>,\n",
    },
    Insertion {
        file: "dataplane/src/catalog/mod.rs",
        place: "    /// Its channels whose format compiles.\n",
        text: "    /// Where it stands.\n    pub location: Option<String>,\n",
    },
    Insertion { file: "dataplane/src/catalog/mod.rs", place: " channels } = self;", text: " location," },
    Insertion {
        file: "dataplane/src/catalog/mod.rs",
        place: "            && channels.len() == other.channels.len()\n",
        text: "            && *location == other.location\n",
    },
    Insertion {
        file: "dataplane/src/catalog/build.rs",
        place: " channels: documents } = document;",
        text: " location,",
    },
    Insertion {
        file: "dataplane/src/catalog/build.rs",
        place: " channels };\n        match self.before",
        text: " location,",
    },
    Insertion {
        file: "dataplane/src/fanout/hello.rs",
        place: "    channels: Vec<ChannelInfo<'a>>,\n",
        text: "    #[serde(skip_serializing_if = \"Option::is_none\")]\n    location: Option<&'a str>,\n",
    },
    Insertion {
        file: "dataplane/src/fanout/hello.rs",
        place: "            channels: device.channels.values().filter(wanted).map(channel_info).collect(),\n",
        text: "            location: device.location.as_deref(),\n",
    },
];

/// Writes the next version's tree into `folder`. What is there already and the same isn't touched, so that
/// cargo builds nothing twice; what doesn't belong there is removed.
///
/// # Errors
/// When a place for an insertion isn't found once (this tree has changed: change `INSERTIONS` with it), or on
/// a fault of the disk.
pub(super) fn write_tree(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut changed = insertions(root)?;
    changed.extend(numbered(root)?);
    let mut wanted = BTreeSet::new();
    for member in members(root)? {
        files_below(root, Path::new(&member), &mut wanted)?;
    }
    for file in &wanted {
        let content = match changed.remove(file) {
            Some(text) => text.into_bytes(),
            None => std::fs::read(root.join(file)).with_context(|| file.display().to_string())?,
        };
        let path = folder.join(file);
        if std::fs::read(&path).is_ok_and(|there| there == content) {
            continue;
        }
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    let mut there = BTreeSet::new();
    files_below(folder, Path::new(""), &mut there)?;
    for file in there.difference(&wanted) {
        std::fs::remove_file(folder.join(file))?;
    }
    Ok(())
}

/// The files that the next version has otherwise, with their text.
///
/// # Errors
/// As [`write_tree`].
fn insertions(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for Insertion { file, place, text } in &INSERTIONS {
        let path = PathBuf::from(file);
        let before = match files.remove(&path) {
            Some(before) => before,
            None => std::fs::read_to_string(root.join(file)).with_context(|| (*file).to_owned())?,
        };
        let count = before.matches(place).count();
        ensure!(
            count == 1,
            "{file} holds {count} times {place:?}: the next version that upgrades are tested with isn't this tree's any more; mend \
             INSERTIONS in xtask/src/images/next.rs"
        );
        files.insert(path, before.replace(place, &format!("{text}{place}")));
    }
    Ok(files)
}

/// The workspace under the next version's number. Cargo tells crates of a workspace by name and number alone,
/// not by their folder: with the same one it would take what it built for this tree for the other's.
fn numbered(root: &Path) -> anyhow::Result<[(PathBuf, String); 2]> {
    let read = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    let (manifest, lock) = (read("Cargo.toml")?, read("Cargo.lock")?);
    let (head, rest) =
        manifest.split_once("[workspace.package]\nversion = \"").context("no version in Cargo.toml")?;
    let (version, rest) = rest.split_once('"').context("no version in Cargo.toml")?;
    let after = version_after(version)?;
    let manifest = format!("{head}[workspace.package]\nversion = \"{after}\"{rest}");
    let ours = |package: &str| package.starts_with("\nname = \"flutecast-");
    let (before, after) = (format!("\nversion = \"{version}\""), format!("\nversion = \"{after}\""));
    let packages = lock
        .split("[[package]]")
        .map(|package| if ours(package) { package.replacen(&before, &after, 1) } else { package.to_owned() });
    let lock = packages.collect::<Vec<_>>().join("[[package]]");
    Ok([("Cargo.toml".into(), manifest), ("Cargo.lock".into(), lock)])
}

/// What cargo needs: the workspace's own files and its members, whose tests and benchmarks come along.
fn members(root: &Path) -> anyhow::Result<Vec<String>> {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let list = manifest.split("\nmembers = [").nth(1).and_then(|rest| rest.split(']').next());
    let list =
        list.context("Cargo.toml has no members")?.split(',').map(|name| name.trim().trim_matches('"'));
    let files = ["Cargo.toml", "Cargo.lock", "LICENSE"];
    Ok(files.into_iter().chain(list.filter(|name| !name.is_empty())).map(str::to_owned).collect())
}

/// All files in a file or folder, by their path below `root`, without what tools put there.
fn files_below(root: &Path, path: &Path, files: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let full = root.join(path);
    if full.is_file() {
        files.insert(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(&full).with_context(|| full.display().to_string())? {
        let name = entry?.file_name();
        let is_of_tools = name == "target" || name.to_string_lossy().starts_with('.');
        if !is_of_tools {
            files_below(root, &path.join(name), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_tree_is_this_one_with_one_more_field() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = tempfile::tempdir().unwrap();
        write_tree(&root, folder.path()).unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(read("crds/src/device.rs").contains("pub location: Option<String>,"));
        let number = format!("\nversion = {:?}\n", version_after(env!("CARGO_PKG_VERSION")).unwrap());
        assert!(read("Cargo.toml").contains(&number));
        assert!(read("Cargo.lock").contains(&format!("\nname = \"flutecast-contract\"{number}")));
        assert_eq!(
            read("libs/contract/src/lib.rs"),
            std::fs::read_to_string(root.join("libs/contract/src/lib.rs")).unwrap()
        );
        // A second time nothing is written, and what isn't ours goes.
        let changed = |file: &str| folder.path().join(file).metadata().unwrap().modified().unwrap();
        let before = ["crds/src/device.rs", "Cargo.lock"].map(changed);
        std::fs::write(folder.path().join("crds/src/old.rs"), "").unwrap();
        write_tree(&root, folder.path()).unwrap();
        assert_eq!(["crds/src/device.rs", "Cargo.lock"].map(changed), before);
        assert!(!folder.path().join("crds/src/old.rs").exists());
    }
}
