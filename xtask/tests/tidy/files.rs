//! Checks the size, name and lines of files, and text that no file may contain.

use std::path::Path;

use crate::source::{members, rust_files, text, tracked_files};

/// The maximum number of lines of a Rust file; a longer file usually has two responsibilities.
const LONGEST_RUST_FILE: usize = 500;
/// Exceptions, each with its reason.
const LONG_RUST_FILES: [(&str, &str); 0] = [];
/// The maximum length of a line, in characters. rustfmt does not wrap comments and strings.
const LONGEST_LINE: usize = 110;
/// Names of files that don't describe their content.
const EMPTY_NAMES: [&str; 5] = ["util", "utils", "helpers", "common", "misc"];

#[test]
fn no_file_names_a_registry_host_or_a_place_of_one_machine() {
    // The names are split so that this file passes the check too.
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
        // Cargo.lock contains the name of cargo's default registry.
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
fn no_line_of_rust_is_too_long() {
    let mut found = Vec::new();
    for (file, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            let length = line.chars().count();
            if length > LONGEST_LINE {
                found.push(format!("{file}:{}: {length} characters", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} lines: {found:#?}", found.len());
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
fn nextest_groups_tests_by_module_never_by_name() {
    let config = text(".config/nextest.toml").expect("text");
    let names: Vec<_> = rust_files().flat_map(|(_, text)| test_functions(&text)).collect();
    assert!(names.len() > 500, "{} test functions", names.len());
    let filters = config.lines().filter(|line| line.trim_start().starts_with("filter"));
    let words = filters.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    // A single word may also be a module's name; several words are a test's name.
    let found: Vec<_> =
        words.filter(|word| word.matches('_').count() > 2 && names.iter().any(|name| name == word)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Returns the names of the test functions in a text.
fn test_functions(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_next = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_next = true;
        } else if is_next && let Some((_, rest)) = line.split_once("fn ") {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_next = false;
        }
    }
    names
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
