//! The rendered charts are validated against the schemas of the oldest supported Kubernetes and of the newest
//! one that was tested.

use std::fs;
use std::path::Path;
use std::process::Command;

use flutecast_testbed::tools;
use flutecast_xtask::charts::rendered_cases;
use serde_json::{Value, json};

use crate::support::{documents, rendered, root, text, yaml};

/// Writes the schemas of a file in `charts/schemas` to a folder in the layout of kubeconform.
fn write_schemas(folder: &Path, file: &str) {
    let schemas: Value = serde_json::from_str(&text(&format!("charts/schemas/{file}"))).unwrap();
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

#[test]
fn argo_cd_applications_are_valid_and_ordered() {
    let folder = tempfile::tempdir().unwrap();
    write_schemas(&folder.path().join("kubernetes"), "kubernetes-1.37.json");
    write_schemas(&folder.path().join("others"), "others.json");
    let names = ["plant-1.yaml", "plant-1/1-kinds.yaml", "plant-1/2-release.yaml", "plant-1/3-factory.yaml"];
    let manifests = names.map(|name| text(&format!("manifests/argocd/{name}"))).join("\n---\n");
    let (good, said) = kubeconform(folder.path(), &manifests);
    assert!(good && yaml(&said)["summary"]["valid"] == 5, "{said}");
    let (mut waves, mut allowed) = (Vec::new(), Vec::new());
    for document in documents(&manifests) {
        let spec = &document["spec"];
        if document["kind"] == "AppProject" {
            let kinds = spec["clusterResourceWhitelist"].as_array().unwrap().iter();
            allowed.extend(kinds.map(|kind| kind["kind"].as_str().unwrap().to_owned()));
            continue;
        }
        assert_eq!(spec["project"], "plant-1");
        let path = spec["source"]["path"].as_str().unwrap();
        assert!(root().join(path).is_dir(), "{path}");
        let wave = &document["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
        waves.extend(wave.as_str().map(|wave| (wave.to_owned(), path.to_owned())));
        let values = &spec["source"]["helm"]["valuesObject"];
        if !values.is_null() {
            // The AppProject must allow each cluster-wide kind by name.
            for object in rendered(&[&format!("nats={}", values["nats"])]) {
                let kind = object["kind"].as_str().unwrap();
                assert!(
                    !object["metadata"]["namespace"].is_null() || allowed.iter().any(|one| one == kind),
                    "{kind}"
                );
                assert_ne!(kind, "Secret", "a generated password would change at each sync");
            }
        }
    }
    let cases = rendered_cases(&root()).unwrap();
    let (_, kinds) = cases.iter().find(|(case, _)| case == "crds").unwrap();
    for object in documents(kinds) {
        assert!(allowed.iter().any(|one| object["kind"] == one.as_str()), "{}", object["kind"]);
    }
    waves.sort();
    assert_eq!(
        waves.iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>(),
        ["charts/flutecast-crds", "charts/flutecast", "manifests/demo"]
    );
}
