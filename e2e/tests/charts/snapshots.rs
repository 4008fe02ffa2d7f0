//! The rendered charts equal the reviewed snapshots.

use std::process::Command;

use flutecast_testbed::{Helm, tools};
use flutecast_xtask::charts::rendered_cases;

use crate::support::{chart, root, text};

#[test]
fn rendered_charts_are_as_committed() {
    let mut names = Vec::new();
    for (case, rendered) in rendered_cases(&root()).unwrap() {
        let path = format!("charts/snapshots/{case}.yaml");
        // The CRDs are committed in charts/flutecast-crds/templates.
        if case == "crds" {
            continue;
        }
        assert!(
            text(&path) == rendered,
            "{path} differs from the rendered chart; run: make charts, and review the difference"
        );
        names.push(format!("{case}.yaml"));
    }
    let mut committed: Vec<_> = std::fs::read_dir(root().join("charts/snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    committed.sort();
    assert_eq!(committed, names);
}

#[test]
fn helm_lint_passes() {
    let helm = Helm::new(None).unwrap();
    let everything = chart("flutecast/ci/everything-values.yaml");
    for (name, values) in [
        ("flutecast-crds", ["--set", "keep=true"]),
        ("flutecast", ["--set", "nats.url=nats://n"]),
        ("flutecast", ["--set", "nats.bundled.enabled=true"]),
        ("flutecast", ["--values", &everything]),
    ] {
        let said = helm.run(&[&["lint", "--strict", &chart(name)][..], &values].concat()).unwrap();
        assert!(said.stdout.contains("0 chart(s) failed"), "{}", said.stdout);
    }
}

#[test]
fn the_charts_own_tests_pass() {
    let program = tools::HELM_UNITTEST.path().unwrap();
    let output = Command::new(program).args(["--strict", &chart("flutecast")]).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let ran = |line: &str| line.starts_with("Tests:") && !line.contains(" 0 passed");
    assert!(said.lines().any(ran), "{said}");
}
