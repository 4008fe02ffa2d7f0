//! The charts write what the API server would fill in inside of lists.
//!
//! Tools for GitOps compare what was rendered with what there is. A field of an object that nobody wrote
//! doesn't count, but most lists are compared as a whole: one default inside of an element, and the two
//! differ for ever.

use std::collections::BTreeSet;

use flutecast_testbed::Helm;
use flutecast_testkit::ApiServer;
use serde_json::{Value, json};

use crate::support::{chart, documents, root, text};

/// Every template that `ci/everything-values.yaml` leaves out.
const BUNDLED: &str = "
nats: {bundled: {enabled: true, sourceSubjects: ['plant.>']}}
dataplane: {topologySpread: {whenUnsatisfiable: DoNotSchedule}, podDisruptionBudget: {maxUnavailable: 1}}
networkPolicy: {devices: [{ipBlock: {cidr: 10.0.0.0/8}}]}
uninstall: {keepMapping: false}
";

/// The OpenAPI document of an API server, which says how lists are merged.
struct Schemas(Value);

impl Schemas {
    async fn of(api: &ApiServer) -> Self {
        Self(serde_json::from_str(&api.kubectl(&["get", "--raw", "/openapi/v2"], "").await.unwrap()).unwrap())
    }

    /// Returns the schema of an object; `Null` if it isn't known, as for kinds of CustomResourceDefinitions
    /// that are new.
    fn of_object(&self, object: &Value) -> &Value {
        let version = object["apiVersion"].as_str().unwrap();
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let wanted = json!({"group": group, "version": version, "kind": object["kind"]});
        let kinds = |schema: &Value| schema["x-kubernetes-group-version-kind"].as_array().cloned();
        let definitions = self.0["definitions"].as_object().unwrap();
        let found =
            definitions.values().find(|schema| kinds(schema).is_some_and(|all| all.contains(&wanted)));
        found.unwrap_or(&Value::Null)
    }

    /// Follows a reference.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/"));
        name.map_or(schema, |name| &self.0["definitions"][name])
    }

    fn differences(&self, rendered: &Value, live: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.compare(self.of_object(rendered), "", rendered, live, false, &mut found);
        let name = format!("{} {}", rendered["kind"], rendered["metadata"]["name"]).replace('"', "");
        found.into_iter().map(|difference| format!("{name}: {difference}")).collect()
    }

    /// Compares a value. With `whole`, fields that only the live object has count.
    fn compare(
        &self,
        schema: &Value,
        path: &str,
        rendered: &Value,
        live: &Value,
        whole: bool,
        found: &mut Vec<String>,
    ) {
        match (rendered, live) {
            (Value::Object(rendered), Value::Object(live)) => {
                let properties = &self.resolved(schema)["properties"];
                for (name, value) in rendered.iter().filter(|(_, value)| !is_empty(value)) {
                    let live = live.get(name).unwrap_or(&Value::Null);
                    self.compare(&properties[name], &format!("{path}.{name}"), value, live, whole, found);
                }
                // The status of a claim's template: no tool counts it.
                let extra = live.keys().filter(|name| !rendered.contains_key(*name) && *name != "status");
                found.extend(extra.filter(|_| whole).map(|name| format!("{path}.{name} is filled in")));
            }
            (Value::Array(rendered), Value::Array(live)) => {
                let merged =
                    schema["x-kubernetes-patch-strategy"].as_str().is_some_and(|how| how.contains("merge"));
                let key = schema["x-kubernetes-patch-merge-key"].as_str().filter(|_| merged && !whole);
                if key.is_none() && rendered.len() != live.len() {
                    found.push(format!("{path} has {} elements instead of {}", live.len(), rendered.len()));
                }
                for (n, value) in rendered.iter().enumerate() {
                    let same = |live: &&Value| key.is_some_and(|key| live[key] == value[key]);
                    let live = if key.is_some() { live.iter().find(same) } else { live.get(n) };
                    let (live, path) = (live.unwrap_or(&Value::Null), format!("{path}[{n}]"));
                    self.compare(&schema["items"], &path, value, live, key.is_none(), found);
                }
            }
            (rendered, live) if rendered == live => {}
            // 1.0 in YAML is 1.
            (Value::Number(rendered), Value::Number(live)) if rendered.as_f64() == live.as_f64() => {}
            (rendered, live) => found.push(format!("{path} is {live} instead of {rendered}")),
        }
    }
}

/// Kubernetes leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(elements) => elements.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns the objects of a release as they were rendered, each with the one that the API server has.
async fn pairs(api: &ApiServer, helm: &Helm, release: &str, namespace: &str) -> Vec<(Value, Value)> {
    let manifest = helm.run(&["get", "manifest", release, "--namespace", namespace]).unwrap().stdout;
    let mut pairs = Vec::new();
    for rendered in documents(&manifest) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&rendered["apiVersion"]);
        let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
        let kind = format!("{}.{version}.{group}", text(&rendered["kind"]));
        let name = text(&rendered["metadata"]["name"]);
        let get = ["get", &kind, &name, "--namespace", namespace, "--output", "json"];
        pairs.push((rendered, serde_json::from_str(&api.kubectl(&get, "").await.unwrap()).unwrap()));
    }
    pairs
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_what_the_api_server_would_fill_in() {
    let api = ApiServer::start().await.unwrap();
    let helm = Helm::new(Some(&api.kubeconfig())).unwrap();
    let others: Value = serde_json::from_str(&text("charts/schemas/others.json")).unwrap();
    let others = json!({"apiVersion": "v1", "kind": "List", "items": others}).to_string();
    api.kubectl(&["apply", "--server-side", "-f", "-"], &others).await.unwrap();
    api.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "--all", "crd"], "").await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let bundled = folder.path().join("values.yaml");
    std::fs::write(&bundled, BUNDLED).unwrap();
    let everything = root().join("charts/flutecast/ci/everything-values.yaml");
    let install = |release: &str, name: &str, namespace: &str, more: &[&str]| {
        let args = ["install", release, &chart(name), "--namespace", namespace, "--create-namespace"];
        helm.run(&[&args[..], more].concat()).unwrap();
    };
    install("kinds", "flutecast-crds", "flutecast-system", &[]);
    install("plant", "flutecast", "plant-1", &["--values", everything.to_str().unwrap()]);
    install("plant", "flutecast", "plant-2", &["--values", bundled.to_str().unwrap()]);

    let schemas = Schemas::of(&api).await;
    let (mut different, mut compared) = (Vec::new(), BTreeSet::new());
    for (release, namespace) in [("kinds", "flutecast-system"), ("plant", "plant-1"), ("plant", "plant-2")] {
        for (rendered, live) in pairs(&api, &helm, release, namespace).await {
            different.extend(schemas.differences(&rendered, &live));
            compared.insert(rendered["kind"].as_str().unwrap().to_owned());
            if rendered["kind"] == "HTTPRoute" {
                // What it was without these, to show that the comparison sees it.
                let mut before = rendered;
                let backend =
                    before.pointer_mut("/spec/rules/0/backendRefs/0").unwrap().as_object_mut().unwrap();
                assert!(backend.remove("weight").is_some());
                let expected = "HTTPRoute plant-flutecast: .spec.rules[0].backendRefs[0].weight is filled in";
                assert_eq!(schemas.differences(&before, &live), [expected]);
            }
        }
    }
    assert_eq!(different, Vec::<String>::new());
    for kind in ["HTTPRoute", "Ingress", "ServiceMonitor", "PrometheusRule", "StatefulSet", "NetworkPolicy"] {
        assert!(compared.contains(kind), "no {kind} among {compared:?}");
    }
    assert!(compared.len() >= 17, "{compared:?}");
}
