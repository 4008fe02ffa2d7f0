//! The mapping as a folder: one file for each shard and one for access, each replaced as a whole, and only if
//! it differs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flutecast_contract::document::ShardDocument;
use flutecast_contract::shard::{ACCESS_FILE, file_name, parse_file_name};

use crate::controller::apply::documents::MappingDocuments;

/// The prefix of temporary files. Readers skip files that begin with a dot.
const TEMPORARY: &str = ".flutecast-tmp-";
/// Everybody on the machine may read a shard.
const SHARD_MODE: u32 = 0o644;
/// Only the owner may read the access document: its digests let one guess tokens.
const ACCESS_MODE: u32 = 0o600;

/// A folder whose shards and access document only this process writes. Other files in it are left alone.
#[derive(Debug)]
pub(crate) struct MappingFolder {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{file}: {message}")]
    Document { file: String, message: String },
}

impl MappingFolder {
    /// Opens the folder, creates it if needed, and removes temporary files of a process that died.
    pub(crate) fn open(path: &Path) -> Result<Self, MappingError> {
        fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        let folder = Self { path: path.to_owned() };
        for name in folder.names()? {
            if name.starts_with(TEMPORARY) {
                folder.remove(&name)?;
            }
        }
        Ok(folder)
    }

    /// Writes the files that differ, and removes shards that are not wanted any more. Returns the names of
    /// the files that changed. Files that were written before an error stay, each is whole.
    pub(crate) fn write(&self, wanted: &MappingDocuments) -> Result<Vec<String>, MappingError> {
        let mut changed = Vec::new();
        // Access that was withdrawn must be withdrawn before there is anything new to read.
        if self.put(ACCESS_FILE, &text_of(ACCESS_FILE, wanted.access.to_yaml())?, ACCESS_MODE)? {
            changed.push(ACCESS_FILE.to_owned());
        }
        let mut names = BTreeSet::new();
        for shard in wanted.all_shards() {
            let name = file_name(&shard.tenant, shard.shard);
            if self.put(&name, &text_of(&name, shard.to_yaml())?, SHARD_MODE)? {
                changed.push(name.clone());
            }
            names.insert(name);
        }
        for name in self.names()? {
            if !names.contains(&name) && self.is_our_shard(&name) {
                self.remove(&name)?;
                changed.push(name);
            }
        }
        if !changed.is_empty() {
            // So that the renames survive a power failure.
            fs::File::open(&self.path)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| failed(&self.path, error))?;
        }
        Ok(changed)
    }

    /// Returns the documents of the tenants. Files that can't be read are skipped.
    pub(crate) fn shards(&self) -> Vec<ShardDocument> {
        self.names().unwrap_or_default().into_iter().filter_map(|name| self.read_shard(&name)).collect()
    }

    fn names(&self) -> Result<Vec<String>, MappingError> {
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, error))?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Replaces a file if it differs. Returns whether it did.
    fn put(&self, name: &str, text: &str, mode: u32) -> Result<bool, MappingError> {
        let path = self.path.join(name);
        if is_already(&path, text, mode) {
            return Ok(false);
        }
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.path)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| failed(&path, error))?;
        Ok(true)
    }

    fn remove(&self, name: &str) -> Result<(), MappingError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }

    /// A file with the name of a shard that is not one belongs to somebody else.
    fn is_our_shard(&self, name: &str) -> bool {
        self.read_shard(name).is_some_and(|shard| file_name(&shard.tenant, shard.shard) == name)
    }

    fn read_shard(&self, name: &str) -> Option<ShardDocument> {
        parse_file_name(name)?;
        ShardDocument::from_yaml(&fs::read_to_string(self.path.join(name)).ok()?).ok()
    }
}

fn is_already(path: &Path, text: &str, mode: u32) -> bool {
    let has_mode =
        |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o777 == mode;
    fs::symlink_metadata(path).is_ok_and(has_mode)
        && fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

fn text_of<E: ToString>(name: &str, text: Result<String, E>) -> Result<String, MappingError> {
    text.map_err(|error| MappingError::Document { file: name.to_owned(), message: error.to_string() })
}

fn failed(path: &Path, error: io::Error) -> MappingError {
    MappingError::Io { path: path.display().to_string(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_what_differs_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mapping = MappingFolder::open(&folder.path().join("new/mapping")).unwrap();
        let access = folder.path().join("new/mapping").join(ACCESS_FILE);
        assert_eq!(mapping.write(&MappingDocuments::default()).unwrap(), [ACCESS_FILE]);
        assert_eq!(mode(&access), ACCESS_MODE);
        assert_eq!(mapping.write(&MappingDocuments::default()).unwrap(), [] as [String; 0]);
        // Its mode and its content are repaired.
        fs::set_permissions(&access, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(mapping.write(&MappingDocuments::default()).unwrap(), [ACCESS_FILE]);
        assert_eq!(mode(&access), ACCESS_MODE);
        fs::write(&access, "tenants: {demo: {anonymous: true}}").unwrap();
        assert_eq!(mapping.write(&MappingDocuments::default()).unwrap(), [ACCESS_FILE]);
        assert!(!fs::read_to_string(&access).unwrap().contains("demo"));
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let mapping = MappingFolder::open(&folder.path().join("mapping")).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("mapping").join(ACCESS_FILE)).unwrap();
        mapping.write(&MappingDocuments::default()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = MappingFolder::open(&folder.path().join("file/mapping")).unwrap_err();
        assert!(error.to_string().contains("file/mapping"), "{error}");
    }
}
