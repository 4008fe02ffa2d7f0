//! Checks the dependencies among the crates against docs/architecture.md.

use std::process::Command;

use crate::source::{members, output, rust_files};

/// Crates that use a runtime, a network or an API server.
const OUTSIDE: [&str; 5] = ["kube", "tokio", "async-nats", "hyper", "mio"];
/// Calls that a pure crate must not make.
const CLOCK_AND_FILES: [&str; 6] =
    ["SystemTime::now", "Instant::now", "Timestamp::now", "std::fs", "std::net", "std::env"];

/// Returns the names of all packages that a package depends on, starting with itself.
fn dependencies(package: &str) -> Vec<String> {
    let tree = ["tree", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"];
    let tree = output(Command::new(env!("CARGO")).args(tree));
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(names.first().map(String::as_str), Some(package));
    names
}

/// Returns the packages of this workspace that a package depends on.
fn ours(package: &str) -> Vec<String> {
    let mut names = dependencies(package);
    names.retain(|name| name.starts_with("flutecast-") && name != package);
    names.sort();
    names.dedup();
    names
}

#[test]
fn contract_and_format_are_data_in_and_data_out() {
    for (package, folder) in
        [("flutecast-contract", "libs/contract/src/"), ("flutecast-format", "libs/format/src/")]
    {
        for name in dependencies(package) {
            let is_of = |word: &&str| {
                name.strip_prefix(*word).is_some_and(|rest| matches!(rest.chars().next(), None | Some('-')))
            };
            assert!(!OUTSIDE.iter().any(is_of), "{package} must not depend on {name}");
        }
        for (file, text) in rust_files().filter(|(file, _)| file.starts_with(folder)) {
            for word in CLOCK_AND_FILES {
                assert!(
                    !text.contains(word),
                    "{file} has {word}; the crate has no clock and no I/O of its own"
                );
            }
        }
    }
}

#[test]
fn operator_and_dataplane_know_each_other_only_through_the_libraries() {
    let of_operator = ours("flutecast-operator");
    let of_dataplane = ours("flutecast-dataplane");
    let libraries =
        ["flutecast-contract", "flutecast-format", "flutecast-kube", "flutecast-nats", "flutecast-process"];
    // The data plane does not depend on the API types.
    assert_eq!(of_dataplane, libraries);
    let of_operator: Vec<_> = of_operator.iter().filter(|name| *name != "flutecast-crds").collect();
    assert_eq!(of_operator, libraries.iter().collect::<Vec<_>>());
    // Names that both programs use are in flutecast-contract, so the libraries mention neither program.
    for (file, text) in rust_files().filter(|(file, _)| file.starts_with("libs/")) {
        for word in ["flutecast_operator", "flutecast_dataplane", "flutecast_crds"] {
            assert!(!text.contains(word), "{file} has {word}");
        }
    }
}

#[test]
fn libraries_depend_downwards() {
    for (package, allowed) in [
        ("flutecast-contract", &[][..]),
        ("flutecast-process", &[]),
        ("flutecast-format", &["flutecast-contract"]),
        ("flutecast-nats", &["flutecast-contract", "flutecast-process"]),
        ("flutecast-kube", &["flutecast-contract", "flutecast-process"]),
    ] {
        for name in ours(package) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn test_rooms_are_for_tests_and_benchmarks_only() {
    let rooms =
        ["flutecast-testkit", "flutecast-testbed", "flutecast-e2e", "flutecast-bench", "flutecast-demo"];
    let product = members().into_iter().filter(|member| {
        ["crds", "operator", "dataplane"].contains(&member.as_str()) || member.starts_with("libs/")
    });
    for member in product {
        let package = format!("flutecast-{}", member.rsplit('/').next().unwrap_or_default());
        for name in ours(&package) {
            assert!(!rooms.contains(&name.as_str()), "{package} must only dev-depend on {name}");
        }
    }
    // xtask builds both programs with cargo; linking them would build them twice.
    for name in ours("flutecast-xtask") {
        assert!(
            !["flutecast-operator", "flutecast-dataplane"].contains(&name.as_str()),
            "xtask links {name}"
        );
    }
}
