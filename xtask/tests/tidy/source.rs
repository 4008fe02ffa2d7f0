//! Lists the tracked files, and reads Rust sources without comments and unit tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The source folders of the product: the programs and the libraries that they link.
pub(crate) const PRODUCT: [&str; 8] = [
    "crds/src/",
    "dataplane/src/",
    "libs/contract/src/",
    "libs/format/src/",
    "libs/kube/src/",
    "libs/nats/src/",
    "libs/process/src/",
    "operator/src/",
];

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

/// Runs a command in the repository and returns its stdout.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the paths of all tracked files that exist.
pub(crate) fn tracked_files() -> Vec<String> {
    // The checkout may belong to another user, which git rejects by default.
    let list = output(Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]));
    let files: Vec<_> = list.split_terminator('\0').map(str::to_owned).collect();
    assert!(files.iter().any(|file| file == "Cargo.toml"), "{files:?}");
    // git still lists a deleted file until the deletion is committed.
    files.into_iter().filter(|file| root().join(file).is_file()).collect()
}

/// Returns the text of a file, or `None` if it is not UTF-8.
pub(crate) fn text(file: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))).ok()
}

/// Returns all Rust files with their text.
pub(crate) fn rust_files() -> impl Iterator<Item = (String, String)> {
    let files = tracked_files().into_iter().filter(|file| file.ends_with(".rs"));
    files.filter_map(|file| text(&file).map(|text| (file, text)))
}

/// Returns the product's Rust files without comments and unit tests.
pub(crate) fn product_code() -> impl Iterator<Item = (String, String)> {
    rust_files().filter(|(file, _)| is_product(file)).map(|(file, text)| (file, code(&text)))
}

fn is_product(file: &str) -> bool {
    let is_test = file.contains("/tests/") || file.ends_with("tests.rs");
    PRODUCT.iter().any(|folder| file.starts_with(folder)) && !is_test
}

/// Removes comments, and the unit tests at the end of a file.
fn code(text: &str) -> String {
    let end = text.match_indices("#[cfg(test)]\n").find(|(at, found)| {
        let next = text[at + found.len()..].lines().next().unwrap_or_default();
        next.starts_with("mod ") && next.ends_with('{')
    });
    let text = end.map_or(text, |(end, _)| &text[..end]);
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the folders of the workspace's crates.
pub(crate) fn members() -> Vec<String> {
    let manifest = text("Cargo.toml").expect("text");
    let members =
        manifest.split_once("members = [").expect("members").1.split_once(']').expect("their end").0;
    members.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}
