//! Reads a folder of manifests from disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::manifests::Files;

/// The largest manifest file. Ten thousand devices take about 4 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The most files, so that a wrong folder (`/`) results in an error.
const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 16;

/// Reads every `*.yaml` and `*.yml` below `root`, except in files and folders that begin with a dot. Symbolic
/// links are followed, as Kubernetes mounts ConfigMaps with them. A file that can't be read has its error in
/// the result.
pub(crate) fn scan(root: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut seen = BTreeSet::new();
    folder(root, "", MAX_DEPTH, &mut seen, &mut files)?;
    Ok(files)
}

fn folder(
    path: &Path,
    within: &str,
    depth: usize,
    seen: &mut BTreeSet<PathBuf>,
    files: &mut Files,
) -> io::Result<()> {
    // A link to one of its own parent folders would be followed forever.
    if depth == 0 || !seen.insert(fs::canonicalize(path)?) {
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let relative = if within.is_empty() { name.clone() } else { format!("{within}/{name}") };
        let is_manifest = name.ends_with(".yaml") || name.ends_with(".yml");
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => folder(&entry.path(), &relative, depth - 1, seen, files)?,
            Ok(metadata) if is_manifest && metadata.is_file() => {
                if files.len() >= MAX_FILES {
                    return Err(io::Error::other(format!(
                        "more than {MAX_FILES} manifest files; is this the right folder?"
                    )));
                }
                files.insert(relative, read(&entry.path()).map_err(|error| error.to_string()));
            }
            // A file may be removed between the two calls; a dangling link is an error only if it has the
            // name of a manifest.
            Err(error) if is_manifest && fs::symlink_metadata(entry.path()).is_ok() => {
                files.insert(relative, Err(error.to_string()));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    String::from_utf8(bytes)
        .map_err(|error| io::Error::other(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
}
