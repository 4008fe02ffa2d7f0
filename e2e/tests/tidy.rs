//! What reviewers would otherwise have to look for, and the invariants of docs/architecture.md about what is
//! absent.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what is wrong by failing")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Rust files may have this many lines; a longer one is read badly and usually holds two things.
const LONGEST_RUST_FILE: usize = 500;
/// Longer files, each with its reason.
const LONG_RUST_FILES: [(&str, &str); 0] = [];
/// Names of files that say nothing about what is in them.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "helpers", "common", "misc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn tracked_files() -> Vec<String> {
    // A checkout may belong to another user than the one who tests it.
    let list = output(Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]));
    let files: Vec<_> = list.split_terminator('\0').map(str::to_owned).collect();
    assert!(files.iter().any(|file| file == "Cargo.toml"), "{files:?}");
    // A file that is deleted but not yet committed so is still in the list.
    files.into_iter().filter(|file| root().join(file).is_file()).collect()
}

/// The text of a file; none for pictures.
fn text(file: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))).ok()
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    let files = tracked_files().into_iter().filter(|file| file.ends_with(".rs"));
    files.filter_map(|file| text(&file).map(|text| (file, text)))
}

fn members() -> Vec<String> {
    let manifest = text("Cargo.toml").expect("text");
    let line = manifest.lines().find(|line| line.starts_with("members")).expect("members in one line");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn dependencies(package: &str) -> Vec<String> {
    let tree = ["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"];
    let tree = output(Command::new(env!("CARGO")).args(tree));
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(names.first().map(String::as_str), Some(package));
    names
}

#[test]
fn no_file_names_a_registry_host_or_a_place_of_one_machine() {
    // In pieces, so that this file may be looked at too.
    let hosts = [
        ["crates", ".io"],
        ["npmjs", ".org"],
        ["pypi", ".org"],
        ["proxy.golang", ".org"],
        ["sum.golang", ".org"],
    ];
    let places = [["/wo", "rk/"], ["/ro", "ot/"], ["/ro", "ot`"], ["/home", "/"], ["/Us", "ers/"]];
    let mut found = Vec::new();
    for file in tracked_files() {
        let Some(text) = text(&file) else { continue };
        // Cargo writes the name of its default registry into its lock file.
        let hosts = if file.ends_with("Cargo.lock") { &hosts[1..] } else { &hosts[..] };
        for (number, line) in text.lines().enumerate() {
            for word in hosts.iter().chain(&places).map(|pieces| pieces.concat()) {
                if line.contains(&word) {
                    found.push(format!("{file}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn rust_files_are_of_ordinary_size() {
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        let lines = text.lines().count();
        let known = LONG_RUST_FILES.iter().any(|(name, reason)| *name == file && !reason.is_empty());
        if (lines > LONGEST_RUST_FILE) != known {
            found.push(format!("{file}: {lines} lines{}", if known { ", needs no exception" } else { "" }));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn file_names_say_what_is_in_them() {
    let stem =
        |file: &str| Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("").to_owned();
    let found: Vec<_> =
        tracked_files().into_iter().filter(|file| EMPTY_NAMES.contains(&stem(file).as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn no_test_is_switched_off() {
    let words = [["#[ign", "ore"], ["cfg(an", "y())"]];
    for (file, text) in rust_files() {
        for word in words.iter().map(|pieces| pieces.concat()) {
            assert!(!text.contains(&word), "{file} has {word}");
        }
    }
}

#[test]
fn every_crate_inherits_the_lints_and_the_licence() {
    let members = members();
    assert!(members.len() >= 6, "{members:?}");
    for member in members {
        let file = format!("{member}/Cargo.toml");
        let manifest = text(&file).expect("text");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{file} must inherit the lints");
        assert!(manifest.contains("license.workspace = true"), "{file} must inherit the licence");
        for line in manifest.lines() {
            let own_version = line.contains("version = \"") && !line.trim_start().starts_with('#');
            assert!(!own_version, "{file}: {line}: versions stand in the root Cargo.toml");
        }
    }
}

#[test]
fn mapping_is_data_in_and_data_out() {
    for name in dependencies("flutecast-contract") {
        let foreign = ["kube", "tokio", "async-nats", "hyper", "mio"]
            .iter()
            .any(|word| name == *word || name.strip_prefix(word).is_some_and(|rest| rest.starts_with('-')));
        assert!(!foreign, "flutecast-contract must not depend on {name}");
    }
    for (file, text) in rust_files().filter(|(file, _)| file.starts_with("mapping/src/")) {
        for word in ["SystemTime::now", "Instant::now", "Timestamp::now", "std::fs", "std::net", "std::env"] {
            assert!(!text.contains(word), "{file} has {word}; the crate has no clock and no I/O of its own");
        }
    }
}

#[test]
fn operator_and_dataplane_do_not_know_each_other() {
    let names = dependencies("flutecast-operator");
    assert!(!names.iter().any(|name| name == "flutecast-dataplane" || name == "warp"), "{names:?}");
    let names = dependencies("flutecast-dataplane");
    // It talks to the Kubernetes API, but of our own kinds it knows nothing.
    assert!(!names.iter().any(|name| name == "flutecast-operator" || name == "flutecast-crds"), "{names:?}");
}

#[test]
fn the_harness_is_for_tests_and_benchmarks_only() {
    // The benchmarks start the same parts as the tests.
    for member in members().iter().filter(|member| !["e2e", "bench"].contains(&member.as_str())) {
        let names = dependencies(&format!("flutecast-{member}"));
        assert!(
            !names.iter().any(|name| name == "flutecast-e2e"),
            "{member} must only dev-depend on flutecast-e2e"
        );
    }
}
