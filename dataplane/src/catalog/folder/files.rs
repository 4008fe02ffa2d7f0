//! Reads the mapping documents of a folder.
//!
//! `flutecast-<tenant>-<n>.yaml` is shard n of a tenant, `flutecast-access.yaml` the access document; other
//! files are ignored. A file that did not change is not read again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::TenantName;
use flutecast_contract::shard::{ACCESS_FILE, parse_file_name};

use crate::access::Access;
use crate::catalog::document::{LastGoodAccess, Parsed, broken, parse_access, parse_shard, unreadable};
use crate::catalog::publisher::MappingSnapshot;
use crate::catalog::{Documents, Problem};

/// The largest document accepted, in bytes. A shard has at most 512 KiB; an access document with very many
/// tokens is larger.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A file modified less than this before it was read is read again the next time, as a second write in the
/// same tick of the file system's clock would not show. The coarsest clock in use (FAT) has 2 s.
const RACY: Duration = Duration::from_secs(2);

/// A folder, and the documents read from it.
#[derive(Debug, Default)]
pub(super) struct FolderReader {
    pub(super) path: PathBuf,
    shards: HashMap<String, Cached<ShardDocument>>,
    access: Option<Cached<Arc<Access>>>,
    last_good_access: LastGoodAccess,
    /// The problems of the last reading; `None` if that failed.
    problems: Option<Vec<Problem>>,
}

#[derive(Debug)]
struct Cached<T> {
    stamp: FileStamp,
    parsed: Parsed<T>,
}

/// Changes when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    length: u64,
    modified: Option<SystemTime>,
    file: u64,
    /// `true` if the last change is so old that another change gives the file another stamp.
    old_enough: bool,
}

impl FileStamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        Self {
            length: metadata.len(),
            modified,
            file: metadata.ino(),
            old_enough: age.is_some_and(|age| age >= RACY),
        }
    }

    /// Returns whether a file with this stamp has the content that it had with the stamp `before`.
    fn is_still(&self, before: &Self) -> bool {
        before.old_enough
            && (self.length, self.modified, self.file) == (before.length, before.modified, before.file)
    }
}

impl FolderReader {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// Reads what has changed since the last time; `None` if nothing has. It is an error if the folder itself
    /// can't be read: the documents are kept, and the next reading returns them all.
    pub(super) fn read(&mut self) -> io::Result<Option<MappingSnapshot>> {
        let reading = self.read_all();
        if reading.is_err() {
            self.problems = None;
        }
        reading
    }

    fn read_all(&mut self) -> io::Result<Option<MappingSnapshot>> {
        let mut names: BTreeMap<String, (TenantName, u32)> = BTreeMap::new();
        let mut access_is_there = false;
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if name == ACCESS_FILE {
                access_is_there = true;
            } else if let Some(shard) = parse_file_name(&name) {
                names.insert(name, shard);
            }
        }
        let files = self.shards.len();
        self.shards.retain(|name, _| names.contains_key(name));
        let mut changed = self.shards.len() != files;
        let mut problems = Vec::new();
        for (name, (tenant, shard)) in &names {
            changed |= self.read_shard(name, (tenant, *shard), &mut problems);
        }
        changed |= self.read_access(access_is_there, &mut problems);
        changed |= self.problems.as_ref() != Some(&problems);
        if !changed {
            return Ok(None);
        }
        self.problems = Some(problems.clone());
        let mut documents = Documents::default();
        for (name, (tenant, _)) in names {
            let parsed = self.shards.get(&name).map(|cached| &cached.parsed);
            problems.extend(parsed.into_iter().flat_map(|parsed| parsed.problems.iter().cloned()));
            match parsed.and_then(|parsed| parsed.document.clone()) {
                Some(document) => documents.documents.push(document),
                None => drop(documents.unreadable.insert(tenant)),
            }
        }
        Ok(Some(MappingSnapshot { documents, access: self.last_good_access.current.clone(), problems }))
    }

    /// Returns whether the file was read again.
    fn read_shard(&mut self, name: &str, expected: (&TenantName, u32), problems: &mut Vec<Problem>) -> bool {
        let mut cached = self.shards.remove(name);
        let parse = |content: &str| parse_shard(name, expected, content);
        let changed = refresh(&self.path, name, &mut cached, parse).unwrap_or_else(|error| {
            // If it was removed after the folder was listed, that causes an event and another reading.
            if error.kind() != io::ErrorKind::NotFound {
                problems.push(unreadable(name, &error.to_string()));
            }
            cached.take().is_some()
        });
        self.shards.extend(cached.map(|cached| (name.to_owned(), cached)));
        changed
    }

    /// Returns whether the access rules changed.
    fn read_access(&mut self, is_there: bool, problems: &mut Vec<Problem>) -> bool {
        if !is_there {
            self.access = None;
            return self.last_good_access.gone();
        }
        let parse = |content: &str| parse_access(ACCESS_FILE, content);
        let read_again = refresh(&self.path, ACCESS_FILE, &mut self.access, parse).unwrap_or_else(|error| {
            problems.push(unreadable(ACCESS_FILE, &error.to_string()));
            false
        });
        let Some(Cached { parsed, .. }) = &self.access else { return false };
        problems.extend(parsed.problems.iter().cloned());
        read_again && self.last_good_access.found(parsed)
    }
}

/// Reads a file again if it has changed. Returns whether it was read.
fn refresh<T>(
    folder: &Path,
    name: &str,
    cached: &mut Option<Cached<T>>,
    parse: impl FnOnce(&str) -> Parsed<T>,
) -> io::Result<bool> {
    let file = File::open(folder.join(name))?;
    let metadata = file.metadata()?;
    let stamp = FileStamp::of(&metadata);
    if cached.as_ref().is_some_and(|cached| stamp.is_still(&cached.stamp)) {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    if metadata.is_file() {
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    let parsed = match str::from_utf8(&bytes) {
        _ if !metadata.is_file() => broken(name, "it is not a file"),
        _ if bytes.len() as u64 > MAX_FILE_BYTES => {
            broken(name, &format!("it has more than {MAX_FILE_BYTES} bytes"))
        }
        Ok(content) => parse(content),
        Err(_) => broken(name, "it is not UTF-8"),
    };
    *cached = Some(Cached { stamp, parsed });
    Ok(true)
}
