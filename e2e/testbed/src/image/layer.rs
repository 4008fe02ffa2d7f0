//! A layer of an image, reproducible byte for byte on every machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use super::digest;

/// The files of a layer by absolute path. Owners and times are zero, so that they don't differ between
/// builds.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    File { mode: u32, content: Vec<u8> },
    Folder { mode: u32 },
}

/// A layer as it is stored in an archive.
#[derive(Debug, Clone)]
pub(super) struct PackedLayer {
    /// The digest of the uncompressed tar.
    pub(super) diff_id: String,
    /// The compressed tar.
    pub(super) bytes: Vec<u8>,
}

impl Layer {
    /// Adds a file and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.folders_above(path);
        self.entries.insert(path.to_owned(), Entry::File { mode, content: content.into() });
        self
    }

    /// Adds an executable file with the content of `source`.
    ///
    /// # Errors
    /// If `source` can't be read.
    pub fn program(&mut self, path: &str, source: &Path) -> anyhow::Result<&mut Self> {
        let content = std::fs::read(source).with_context(|| format!("{}", source.display()))?;
        Ok(self.file(path, 0o755, content))
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.folders_above(path);
        self.entries.insert(path.to_owned(), Entry::Folder { mode });
        self
    }

    fn folders_above(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1) {
            let folder = path[..end].to_owned();
            self.entries.entry(folder).or_insert(Entry::Folder { mode: 0o755 });
        }
    }

    pub(super) fn pack(&self) -> anyhow::Result<PackedLayer> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            ensure!(path.starts_with('/') && path.len() > 1, "{path:?} is not an absolute path");
            let mut header = plain_header();
            let name = &path[1..];
            match entry {
                Entry::File { mode, content } => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, name, content.as_slice())?;
                }
                Entry::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, format!("{name}/"), std::io::empty())?;
                }
            }
        }
        let plain = archive.into_inner()?;
        // The header holds neither name nor time, and the implementation of the algorithm doesn't depend on
        // the processor.
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
        gzip.write_all(&plain)?;
        Ok(PackedLayer { diff_id: digest(&plain), bytes: gzip.finish()? })
    }
}

/// Returns a header in which all varying fields are zero.
pub(super) fn plain_header() -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
