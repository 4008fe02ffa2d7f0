//! Locates files of this repository.

use std::path::{Path, PathBuf};

/// Returns the path of a file or folder of this repository, such as `manifests/demo`.
#[must_use]
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
