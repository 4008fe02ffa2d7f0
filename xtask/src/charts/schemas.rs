//! Generates the JSON schemas with which kubeconform checks rendered charts. They are strict, without
//! descriptions, and cover only the kinds in use. Definitions of kinds of other projects are kept whole, as
//! tests also give them to an API server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

/// The Kubernetes kinds in the charts, by their names in the OpenAPI document of Kubernetes.
const KINDS: [&str; 18] = [
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.StatefulSet",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.Ingress",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
    "io.k8s.api.rbac.v1.ClusterRole",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
    "io.k8s.api.scheduling.v1.PriorityClass",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
];

/// Returns `{"definitions": …, "kinds": {"<kind>-<first part of the group>-<version>": <name of its
/// definition>}}`, with names in lower case as kubeconform uses them.
pub(super) fn of_kubernetes(swagger: &Path) -> anyhow::Result<Value> {
    let document: Value = serde_json::from_slice(&std::fs::read(swagger)?)?;
    let version = document["info"]["version"].as_str().context("no version")?.to_owned();
    let mut kinds = BTreeMap::new();
    let mut found = Map::new();
    let mut wanted = KINDS.map(str::to_owned).to_vec();
    for name in &wanted {
        let gvk = &document["definitions"][name.as_str()]["x-kubernetes-group-version-kind"][0];
        let text = |key: &str| gvk[key].as_str().unwrap_or_default().to_lowercase();
        let group = text("group").split('.').next().unwrap_or_default().to_owned();
        let parts = [text("kind"), group, text("version")];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        ensure!(parts.len() > 1, "{name} has no kind in {}", swagger.display());
        kinds.insert(parts.join("-"), name.clone());
    }
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let mut schema = document["definitions"][&name].clone();
        ensure!(schema.is_object(), "no {name}");
        references(&schema, &mut wanted);
        simplify(&mut schema);
        found.insert(name, schema);
    }
    Ok(json!({"version": version, "kinds": kinds, "definitions": found}))
}

/// Returns CustomResourceDefinitions of other projects, without what only people read, and with their storage
/// versions only.
pub(super) fn definitions(files: &[PathBuf]) -> anyhow::Result<Value> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)?;
        // serde_yaml skips the comments at the start.
        let mut definition: Value =
            serde_yaml::from_str(&text).with_context(|| format!("{}", file.display()))?;
        let metadata = &definition["metadata"];
        let mut kept = json!({"name": metadata["name"]});
        // Without it the API server refuses kinds of Kubernetes' own groups.
        if let Some(approved) = metadata["annotations"].get("api-approved.kubernetes.io") {
            kept["annotations"] = json!({"api-approved.kubernetes.io": approved});
        }
        definition["metadata"] = kept;
        let versions = definition["spec"]["versions"].as_array_mut().context("versions")?;
        versions.retain(|version| version["storage"] == true);
        for version in versions {
            without_descriptions(&mut version["schema"]["openAPIV3Schema"]);
        }
        found.push(definition);
    }
    Ok(Value::Array(found))
}

/// Removes the descriptions of a schema and of all below it.
fn without_descriptions(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    keywords.remove("description");
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        properties.values_mut().for_each(without_descriptions);
    }
    for keyword in ["items", "additionalProperties", "not"] {
        keywords.get_mut(keyword).map(without_descriptions);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        keywords
            .get_mut(keyword)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .for_each(without_descriptions);
    }
}

/// Returns the same structure as [`of_kubernetes`] for CustomResourceDefinitions, whose schemas do not refer
/// to each other.
///
/// # Errors
/// Returns an error if a definition has an unexpected form.
pub fn of_definitions(definitions: &Value) -> anyhow::Result<Value> {
    let (mut kinds, mut found) = (BTreeMap::new(), Map::new());
    for definition in definitions.as_array().context("a list of definitions")? {
        let spec = &definition["spec"];
        let (kind, group) =
            (spec["names"]["kind"].as_str().context("kind")?, spec["group"].as_str().context("group")?);
        for version in spec["versions"].as_array().context("versions")? {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            simplify(&mut schema);
            schema["properties"]["metadata"] = json!({"type": "object"});
            let first = group.split('.').next().unwrap_or_default();
            let name =
                format!("{}-{first}-{}", kind.to_lowercase(), version["name"].as_str().context("version")?);
            kinds.insert(name.clone(), name.clone());
            found.insert(name, schema);
        }
    }
    Ok(json!({"kinds": kinds, "definitions": found}))
}

/// Collects the definitions that a schema refers to.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(keywords) => {
            if let Some(Value::String(name)) = keywords.get("$ref") {
                found.extend(name.strip_prefix("#/definitions/").map(str::to_owned));
            }
            keywords.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Removes keywords that are not checked, and rejects unknown properties as the API server does in strict
/// mode.
fn simplify(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    let open = keywords.get("x-kubernetes-preserve-unknown-fields").is_some_and(|open| open == true);
    if keywords.get("format").is_some_and(|format| format == "int-or-string")
        || keywords.get("x-kubernetes-int-or-string").is_some_and(|either| either == true)
    {
        keywords.clear();
        keywords.insert("type".into(), json!(["integer", "string"]));
        return;
    }
    keywords.retain(|keyword, _| {
        keyword != "description" && keyword != "default" && !keyword.starts_with("x-kubernetes")
    });
    // The API server also accepts numbers as quantities.
    if let Some(format) = keywords.get("format").and_then(Value::as_str).map(str::to_owned)
        && !["int32", "int64", "double", "date-time"].contains(&format.as_str())
    {
        keywords.remove("format");
    }
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        properties.values_mut().for_each(simplify);
        if !open && !keywords.contains_key("additionalProperties") {
            keywords.insert("additionalProperties".into(), json!(false));
        }
    }
    for keyword in ["items", "additionalProperties", "not"] {
        if let Some(inner) = keywords.get_mut(keyword) {
            simplify(inner);
        }
    }
    // The parts of these keywords would reject the properties that are defined beside them.
    for keyword in ["allOf", "anyOf", "oneOf"] {
        keywords.remove(keyword);
    }
}
