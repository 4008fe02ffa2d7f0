//! The generated files in the repository are current.

use std::fs;

use flutecast_crds::definition::CrdKind;

use super::support::{repository, yaml};

const COMMAND: &str = "cargo run -p flutecast-crds --bin crdgen -- crds/yaml docs/api.md";

#[test]
fn the_committed_definitions_are_current() {
    let folder = repository().join("crds/yaml");
    for kind in CrdKind::ALL {
        let path = folder.join(kind.file_name());
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == kind.yaml().unwrap(),
            "{} is not what the types say; run: {COMMAND}",
            path.display()
        );
    }
    let mut files: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["devices.yaml", "pushformats.yaml", "tenants.yaml"],
        "{COMMAND} writes these three and nothing else"
    );
}

#[test]
fn the_committed_reference_is_current() {
    let committed = fs::read_to_string(repository().join("docs/api.md")).unwrap_or_default();
    assert!(
        committed == flutecast_crds::reference::markdown().unwrap(),
        "docs/api.md is not what the types say; run: {COMMAND}"
    );
}

/// The YAML serializer folds long strings.
#[test]
fn the_yaml_is_equal_to_the_definition() {
    for kind in CrdKind::ALL {
        let definition = serde_json::to_value(kind.definition().unwrap()).unwrap();
        assert_eq!(yaml(&kind.yaml().unwrap()), definition, "{kind:?}");
    }
}
