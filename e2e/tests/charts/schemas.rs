//! The rendered charts are validated against the schemas of the oldest supported Kubernetes and of the newest
//! one that was tested.

use std::fs;
use std::path::Path;
use std::process::Command;

use flutecast_testbed::tools;
use flutecast_xtask::charts::{rendered_cases, schemas_of_definitions};
use serde_json::{Value, json};

use crate::support::{root, text, yaml};

/// Writes the schemas of a file in `charts/schemas` to a folder in the layout of kubeconform.
fn write_schemas(folder: &Path, file: &str) {
    let mut schemas: Value = serde_json::from_str(&text(&format!("charts/schemas/{file}"))).unwrap();
    if schemas.is_array() {
        schemas = schemas_of_definitions(&schemas).unwrap();
    }
    fs::create_dir_all(folder).unwrap();
    let definitions = json!({"definitions": schemas["definitions"]}).to_string();
    // All definitions are in one file, so references between them stay valid.
    fs::write(folder.join("definitions.json"), definitions).unwrap();
    for (kind, name) in schemas["kinds"].as_object().unwrap() {
        let reference = format!("definitions.json#/definitions/{}", name.as_str().unwrap());
        fs::write(folder.join(format!("{kind}.json")), json!({"$ref": reference}).to_string()).unwrap();
    }
}

fn kubeconform(folder: &Path, rendered: &str) -> (bool, String) {
    let file = folder.join("rendered.yaml");
    fs::write(&file, rendered).unwrap();
    let location =
        |name: &str| format!("{}/{name}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", folder.display());
    let output = Command::new(tools::KUBECONFORM.path().unwrap())
        .args(["-strict", "-summary", "-output", "json"])
        .args(["-schema-location", &location("kubernetes"), "-schema-location", &location("others")])
        .arg(&file)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// What kube-score asks for and the charts don't do, with the reason. Beside these they have no CPU limits,
/// which would hold events back; what others may count on is requested.
const NOT_FOLLOWED: [(&str, &str); 3] = [
    (
        "container-image-pull-policy",
        "with Always no pod starts while the registry is away; our tags never move",
    ),
    (
        "container-ephemeral-storage-request-and-limit",
        "the root is read-only, and nothing is written but logs",
    ),
    ("deployment-has-host-podantiaffinity", "topologySpreadConstraints spread pods over nodes and zones"),
];

#[test]
fn kube_score_finds_nothing_but_what_is_decided() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    let mut seen = std::collections::BTreeSet::new();
    for (case, rendered) in rendered_cases(&root()).unwrap() {
        fs::write(&file, rendered).unwrap();
        let output = Command::new(tools::KUBE_SCORE.path().unwrap())
            .args([
                "score",
                "--kubernetes-version",
                "v1.33",
                "--ignore-container-cpu-limit",
                "--output-format",
                "json",
            ])
            .arg(&file)
            .output()
            .unwrap();
        let objects: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        // `null` where no check is about any of the kinds.
        for object in objects.as_array().into_iter().flatten() {
            let checks = object["checks"].as_array().unwrap();
            let wrong = |check: &&Value| check["skipped"] == false && check["grade"] != 10;
            for check in checks.iter().filter(wrong) {
                let id = check["check"]["id"].as_str().unwrap();
                assert!(
                    NOT_FOLLOWED.iter().any(|(known, _)| *known == id),
                    "{case}: {}: {id}: {}",
                    object["object_name"],
                    check["comments"]
                );
                seen.insert(id.to_owned());
            }
        }
    }
    // One that isn't asked for any more needs no reason.
    assert_eq!(seen.len(), NOT_FOLLOWED.len(), "{seen:?}");
}

#[test]
fn rendered_charts_are_valid_for_oldest_and_newest_kubernetes() {
    for version in ["1.33", "1.37"] {
        let folder = tempfile::tempdir().unwrap();
        write_schemas(&folder.path().join("kubernetes"), &format!("kubernetes-{version}.json"));
        write_schemas(&folder.path().join("others"), "others.json");
        for (case, rendered) in rendered_cases(&root()).unwrap() {
            let (good, said) = kubeconform(folder.path(), &rendered);
            assert!(good, "{case} on {version}: {said}");
            let summary = yaml(&said);
            assert_eq!(summary["summary"]["skipped"], 0, "{case}: {said}");
            assert!(summary["summary"]["valid"].as_u64().unwrap() >= 3, "{case}: {said}");
            // Shows that the validation itself works: it finds errors that the API server would refuse.
            if case == "everything" {
                for (right, wrong) in [
                    ("terminationGracePeriodSeconds: 40", "terminationGraceSeconds: 40"),
                    ("averageUtilization: 70", "averageUtilization: seventy"),
                    ("backendRequest: 0s", "backend: 0s"),
                ] {
                    assert!(rendered.contains(right), "{right}");
                    let (good, said) = kubeconform(folder.path(), &rendered.replace(right, wrong));
                    assert!(!good, "{wrong} passes: {said}");
                }
            }
        }
    }
}
