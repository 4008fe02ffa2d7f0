//! Generated files are current, and values that appear in several places agree.

use flutecast_xtask::charts::chart_files;
use serde_json::Value;

use crate::support::{object, rendered, root, text, yaml};

#[test]
fn generated_files_are_current() {
    for (path, expected) in chart_files(&root()).unwrap() {
        let committed = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        assert!(committed == expected, "{} is not current; run: make charts", path.display());
    }
}

#[test]
fn charts_have_the_workspaces_version() {
    let version = env!("CARGO_PKG_VERSION");
    for name in ["flutecast", "flutecast-crds"] {
        let chart = yaml(&text(&format!("charts/{name}/Chart.yaml")));
        assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()), "{name}");
    }
}

/// Returns the rules of all Roles and ClusterRoles of a manifest.
fn rules(path: &str) -> Vec<Value> {
    let documents = text(path);
    let documents = documents.split("\n---\n").map(yaml);
    documents.filter_map(|document| document["rules"].as_array().cloned()).flatten().collect()
}

#[test]
fn a_release_has_exactly_the_rights_that_the_programs_are_tested_with() {
    let objects = rendered(&["nats.url=\"nats://n\""]);
    for (name, path) in [
        ("flutecast-operator", "manifests/operator/rbac.yaml"),
        ("flutecast-dataplane", "manifests/dataplane/rbac.yaml"),
    ] {
        assert_eq!(object(&objects, "Role", name)["rules"], Value::Array(rules(path)));
    }
    let kinds: Vec<_> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert!(!kinds.iter().any(|kind| kind.starts_with("ClusterRole")), "{kinds:?}");
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "Role").count(),
        2,
        "a Tenant's Secret may be read only if it is named"
    );
    let objects = rendered(&["nats.url=\"nats://n\"", r#"tokenSecrets=["acme-dashboards"]"#]);
    let role = object(&objects, "Role", "flutecast-token-secrets");
    assert_eq!(role["rules"][0]["resourceNames"], serde_json::json!(["acme-dashboards"]));
}
