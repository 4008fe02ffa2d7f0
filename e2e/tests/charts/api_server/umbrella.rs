//! An umbrella chart, as plants have for all that belongs to one site, with both charts in it.

use std::path::Path;

use flutecast_testbed::Helm;
use flutecast_testkit::ApiServer;
use serde_json::Value;

use crate::support::{documents, object, root, text};

const VALUES: &str = "
global: {imageRegistry: r.site.example, imagePullSecrets: [{name: login}, other], site: suzhou}
flutecast: {enabled: true, nats: {bundled: {enabled: true}}, image: {pullSecrets: [other]}}
flutecast-crds: {enabled: true}
";

/// Writes the umbrella chart of docs/install.md, and values that it gives to all its parts.
fn write_umbrella(folder: &Path) {
    let docs = text("docs/install.md");
    let (_, own) = docs.split_once("```yaml\napiVersion: v2\n").unwrap();
    let (own, _) = own.split_once("```").unwrap();
    let charts = format!("file://{}", root().join("charts").display());
    assert_eq!(own.matches("file://../charts/").count(), 2, "{own}");
    let own = format!("apiVersion: v2\n{}", own.replace("file://../charts", &charts));
    std::fs::create_dir_all(folder.join("templates")).unwrap();
    std::fs::write(folder.join("Chart.yaml"), own).unwrap();
    std::fs::write(folder.join("values.yaml"), VALUES).unwrap();
}

/// Returns the kinds and names of objects.
fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    objects.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_charts_live_under_conditions_of_an_umbrella_chart() {
    let api = ApiServer::start().await.unwrap();
    let helm = Helm::new(Some(&api.kubeconfig())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_umbrella(folder.path());
    let site = folder.path().to_str().unwrap();
    helm.run(&["dependency", "update", site]).unwrap();
    helm.run(&["lint", "--strict", site]).unwrap();

    // Each part alone, and neither.
    let rendered = |values: &str| {
        let args = ["template", "site", site, "--namespace", "plant-1", "--set", values];
        documents(&helm.run(&args).unwrap().stdout)
    };
    let without_kinds = names(&rendered("flutecast-crds.enabled=false"));
    assert!(without_kinds.contains(&"Deployment/site-flutecast-operator".to_owned()), "{without_kinds:?}");
    assert!(!without_kinds.iter().any(|name| name.starts_with("CustomResource")), "{without_kinds:?}");
    let kinds = names(&rendered("flutecast.enabled=false"));
    assert!(kinds.contains(&"CustomResourceDefinition/tenants.flutecast.io".to_owned()), "{kinds:?}");
    assert!(!kinds.iter().any(|name| name.starts_with("Deployment")), "{kinds:?}");
    assert_eq!(rendered("flutecast.enabled=false,flutecast-crds.enabled=false"), Vec::<Value>::new());

    // The site's values reach all pods.
    let objects = rendered("flutecast.enabled=true");
    for (kind, component) in
        [("Deployment", "operator"), ("Deployment", "dataplane"), ("StatefulSet", "nats")]
    {
        let pod = &object(&objects, kind, &format!("site-flutecast-{component}"))["spec"]["template"]["spec"];
        let image = pod["containers"][0]["image"].as_str().unwrap();
        assert!(image.starts_with("r.site.example/") && image.contains(component), "{image}");
        let secrets = serde_json::json!([{"name": "login"}, {"name": "other"}]);
        assert_eq!(pod["imagePullSecrets"], secrets, "{component}");
    }

    // Kinds and release in one go, on a cluster that knows neither.
    let place = ["site", site, "--namespace", "plant-1", "--create-namespace"];
    helm.run(&[&["install"][..], &place].concat()).unwrap();
    let there = async |kinds: &str| {
        let get = ["get", kinds, "--namespace", "plant-1", "--output", "name"];
        api.kubectl(&get, "").await.unwrap()
    };
    let pods = there("deployment,statefulset").await;
    for name in ["site-flutecast-operator", "site-flutecast-dataplane", "site-flutecast-nats"] {
        assert!(pods.contains(name), "{name} in {pods}");
    }
    assert_eq!(there("fd").await, "", "the kind is there");

    // The next site of the cluster brings no kinds of its own.
    let next = ["install", "flutecast", site, "--namespace", "plant-2", "--create-namespace"];
    helm.run(&[&next[..], &["--set", "flutecast-crds.enabled=false"]].concat()).unwrap();
    let get = ["get", "deployment", "--namespace", "plant-2", "--output", "name"];
    let deployments = api.kubectl(&get, "").await.unwrap();
    assert!(deployments.contains("deployment.apps/flutecast-operator"), "{deployments}");

    // Switched off, the factory goes, and the kinds with all factories stay.
    helm.run(&[&["upgrade"][..], &place, &["--set", "flutecast.enabled=false"]].concat()).unwrap();
    assert_eq!(there("deployment,statefulset").await, "");
    helm.run(&["uninstall", "site", "--namespace", "plant-1"]).unwrap();
    assert_eq!(there("fd").await, "", "the kind is there");
}
