//! Mapping documents in a folder: what is there now.
//!
//! `flutecast-<tenant>-<n>.yaml` is shard n of a tenant, `flutecast-access.yaml` says who may read; other files are nobody's
//! business here. A file that did not change is not read again.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flutecast_mapping::document::{AccessDocument, ShardDocument};
use flutecast_mapping::name::TenantName;

use super::{Documents, Problem, ProblemKind};
use crate::access::Access;

/// The largest document that is read, in bytes. A shard has 512 KiB at most; an access document with very many tokens is larger.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A file that was written less than this before it was read is read again the next time, as a second write in the same tick
/// of the file system's clock would not show. The coarsest clock in use (FAT) has 2 s.
const RACY: Duration = Duration::from_secs(2);

const PREFIX: &str = "flutecast-";
const SUFFIX: &str = ".yaml";
const ACCESS_FILE: &str = "flutecast-access.yaml";

/// A folder, and what was read of it so far.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    shards: HashMap<String, Cached<ShardDocument>>,
    access: Option<Cached<Arc<Access>>>,
    last_good_access: Option<Arc<Access>>,
    /// What the last reading found wrong.
    problems: Option<Vec<Problem>>,
}

/// What a folder holds now.
#[derive(Debug)]
pub(super) struct Reading {
    /// The mapping.
    pub(super) documents: Documents,
    /// Who may read. None: no access document was ever there.
    pub(super) access: Option<Arc<Access>>,
    /// What is wrong with the files.
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug)]
struct Cached<T> {
    stamp: Stamp,
    parsed: Parsed<T>,
}

/// A document, or none if it is broken, and what is wrong with it.
#[derive(Debug, Clone)]
struct Parsed<T> {
    document: Option<T>,
    problems: Vec<Problem>,
}

/// What changes when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    file: u64,
    settled: bool,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        Self {
            length: metadata.len(),
            modified,
            file: inode(metadata),
            settled: age.is_some_and(|age| age >= RACY),
        }
    }

    /// Whether a file with this stamp holds what it held when it had the stamp `before`.
    fn is_still(&self, before: &Self) -> bool {
        before.settled
            && (self.length, self.modified, self.file) == (before.length, before.modified, before.file)
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_metadata: &fs::Metadata) -> u64 {
    0
}

impl Folder {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            shards: HashMap::new(),
            access: None,
            last_good_access: None,
            problems: None,
        }
    }

    /// The folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what has changed since the last time. None: nothing has.
    ///
    /// # Errors
    /// When the folder itself can't be read; what was read before stays, and the next reading tells it all.
    pub(super) fn read(&mut self) -> io::Result<Option<Reading>> {
        let reading = self.read_all();
        if reading.is_err() {
            self.problems = None;
        }
        reading
    }

    fn read_all(&mut self) -> io::Result<Option<Reading>> {
        let mut names: BTreeMap<String, TenantName> = BTreeMap::new();
        let mut access_is_there = false;
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if name == ACCESS_FILE {
                access_is_there = true;
            } else if let Some((tenant, _shard)) = shard_name(&name) {
                names.insert(name, tenant);
            }
        }
        let files = self.shards.len();
        self.shards.retain(|name, _| names.contains_key(name));
        let mut changed = self.shards.len() != files;
        let mut problems = Vec::new();
        for name in names.keys() {
            changed |= self.read_shard(name, &mut problems);
        }
        changed |= self.read_access(access_is_there, &mut problems);
        changed |= self.problems.as_ref() != Some(&problems);
        if !changed {
            return Ok(None);
        }
        self.problems = Some(problems.clone());
        let mut documents = Documents::default();
        for (name, tenant) in names {
            let parsed = self.shards.get(&name).map(|cached| &cached.parsed);
            problems.extend(parsed.into_iter().flat_map(|parsed| parsed.problems.iter().cloned()));
            match parsed.and_then(|parsed| parsed.document.clone()) {
                Some(document) => documents.documents.push(document),
                None => drop(documents.unreadable.insert(tenant)),
            }
        }
        Ok(Some(Reading { documents, access: self.last_good_access.clone(), problems }))
    }

    /// Returns whether the file was read anew.
    fn read_shard(&mut self, name: &str, problems: &mut Vec<Problem>) -> bool {
        let before = self.shards.get(name).map(|cached| &cached.stamp);
        match read_if_changed(&self.path.join(name), before) {
            Ok(None) => false,
            Ok(Some((stamp, content))) => {
                let parsed = content
                    .map_or_else(|problem| broken(name, &problem), |content| parse_shard(name, &content));
                self.shards.insert(name.to_owned(), Cached { stamp, parsed });
                true
            }
            Err(error) => {
                // When it was removed since the folder was listed, the event of that brings us back.
                if error.kind() != io::ErrorKind::NotFound {
                    problems.push(unreadable(name, &error.to_string()));
                }
                self.shards.remove(name).is_some()
            }
        }
    }

    /// A document that is broken leaves things as they were. One that is removed opens nothing any more. Returns whether
    /// something else holds now.
    fn read_access(&mut self, is_there: bool, problems: &mut Vec<Problem>) -> bool {
        let known = self.last_good_access.clone();
        if !is_there {
            self.access = None;
            self.last_good_access = known
                .as_ref()
                .map(|known| if known.tenants() == 0 { Arc::clone(known) } else { Arc::default() });
            return !same(known.as_ref(), self.last_good_access.as_ref());
        }
        let before = self.access.as_ref().map(|cached| &cached.stamp);
        match read_if_changed(&self.path.join(ACCESS_FILE), before) {
            Ok(None) => {}
            Ok(Some((stamp, content))) => {
                let parsed = content
                    .map_or_else(|problem| broken(ACCESS_FILE, &problem), |content| parse_access(&content));
                if let Some(access) = &parsed.document {
                    // The same rules stay the same `Arc`, so that nobody is asked to look again.
                    if known.as_ref() != Some(access) {
                        self.last_good_access = Some(Arc::clone(access));
                    }
                }
                self.access = Some(Cached { stamp, parsed });
            }
            Err(error) => {
                problems.push(unreadable(ACCESS_FILE, &error.to_string()));
            }
        }
        if let Some(cached) = &self.access {
            problems.extend(cached.parsed.problems.iter().cloned());
        }
        !same(known.as_ref(), self.last_good_access.as_ref())
    }
}

fn same(a: Option<&Arc<Access>>, b: Option<&Arc<Access>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The tenant and the shard that a file name stands for.
fn shard_name(name: &str) -> Option<(TenantName, u32)> {
    let (tenant, shard) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    // "01" would be a second name of shard 1.
    let number = shard.parse::<u32>().ok().filter(|number| number.to_string() == shard)?;
    Some((TenantName::new(tenant).ok()?, number))
}

type Content = Result<String, String>;

/// The file's content, or what is wrong with it, if it may have changed since it had the stamp `before`.
fn read_if_changed(path: &Path, before: Option<&Stamp>) -> io::Result<Option<(Stamp, Content)>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let stamp = Stamp::of(&metadata);
    if before.is_some_and(|before| stamp.is_still(before)) {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Ok(Some((stamp, Err("it is not a file".to_owned()))));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    let content = if bytes.len() as u64 > MAX_FILE_BYTES {
        Err(format!("it has more than {MAX_FILE_BYTES} bytes"))
    } else {
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
    };
    Ok(Some((stamp, content)))
}

fn parse_shard(name: &str, content: &str) -> Parsed<ShardDocument> {
    let document: ShardDocument = match serde_yaml::from_str(content) {
        Ok(document) => document,
        Err(error) => return broken(name, &error.to_string()),
    };
    match shard_name(name) {
        Some((tenant, shard)) if (&tenant, shard) == (&document.tenant, document.shard) => {
            Parsed { document: Some(document), problems: Vec::new() }
        }
        _ => {
            let ShardDocument { tenant, shard, .. } = document;
            broken(
                name,
                &format!("it says that it is shard {shard} of tenant {tenant}, which its name doesn't"),
            )
        }
    }
}

fn parse_access(content: &str) -> Parsed<Arc<Access>> {
    // The error of the parser would show the lines around it, and they hold digests.
    let document: AccessDocument = match serde_yaml::from_str(content) {
        Ok(document) => document,
        Err(error) => return broken(ACCESS_FILE, &without_snippet(&error)),
    };
    match Access::from_document(document) {
        Ok((access, bad)) => {
            let problem = |bad: crate::access::BadAccess| Problem {
                kind: ProblemKind::BadAccess,
                place: format!("{ACCESS_FILE}, {}", bad.place),
                message: bad.message,
            };
            Parsed { document: Some(Arc::new(access)), problems: bad.into_iter().map(problem).collect() }
        }
        Err(bad) => broken(ACCESS_FILE, &bad.to_string()),
    }
}

fn without_snippet(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => {
            format!("it can't be parsed; see line {}, column {}", location.line(), location.column())
        }
        None => "it can't be parsed".to_owned(),
    }
}

fn broken<T>(name: &str, message: &str) -> Parsed<T> {
    Parsed { document: None, problems: vec![unreadable(name, message)] }
}

fn unreadable(name: &str, message: &str) -> Problem {
    let message = format!("{message}; the last good state is kept");
    Problem { kind: ProblemKind::Unreadable, place: name.to_owned(), message }
}
