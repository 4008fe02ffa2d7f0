//! Validates objects as an API server does: defaults, structure, rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flutecast_crds::definition::CrdKind;
use kube_cel::{ErrorKind, ValidationError, Validator};
use regex::Regex;
use serde_json::{Map, Value};

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Parses a YAML document.
pub(crate) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Returns a small valid object, which cases change.
pub(crate) fn good(kind: CrdKind) -> Value {
    yaml(match kind {
        CrdKind::Tenant => {
            "{apiVersion: flutecast.io/v1alpha1, kind: Tenant, metadata: {name: acme}, \
             spec: {retention: {maxAge: 1h}}}"
        }
        CrdKind::Device => {
            "{apiVersion: flutecast.io/v1alpha1, kind: Device, metadata: {name: corrugator-1}, \
             spec: {tenant: acme, deviceCode: CORR-01, channels: [{name: telemetry, format: corrugator}]}}"
        }
        CrdKind::PushFormat => {
            "{apiVersion: flutecast.io/v1alpha1, kind: PushFormat, metadata: {name: corrugator}, \
             spec: {fields: [{name: speed, pointer: /v, type: Number}]}}"
        }
    })
}

/// Returns the object with the JSON merge patch (RFC 7386) applied.
pub(crate) fn patched(mut object: Value, patch: &str) -> Value {
    merge(&mut object, yaml(patch));
    object
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Returns the errors of the rules that the object breaks.
pub(crate) fn broken_rules(kind: CrdKind, object: &Value, old: Option<&Value>) -> Vec<ValidationError> {
    let schema = kind.schema().unwrap();
    let errors = Validator::new()
        .validate(&schema, object, old)
        .err()
        .map_or_else(Vec::new, |errors| errors.into_vec());
    for error in &errors {
        // A rule that can't be evaluated is itself wrong.
        assert_eq!(error.kind, ErrorKind::ValidationFailure, "{error}: {}", error.rule);
    }
    errors
}

/// Returns the errors of the schema as `path: keyword`.
pub(crate) fn broken_structure(kind: CrdKind, object: &Value) -> Vec<String> {
    let schema = kind.schema().unwrap();
    let object = kube_cel::apply_defaults(&schema, object);
    let mut problems = Vec::new();
    // The API server validates these three by itself.
    let mut object = object.as_object().unwrap().clone();
    for field in ["apiVersion", "kind", "metadata"] {
        assert!(object.remove(field).is_some(), "{field} is missing");
    }
    node(&schema, &Value::Object(object), "", &mut problems);
    problems
}

/// Validates a value; the path has `[]` for any item.
fn node(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let mut wrong = |keyword: &str| problems.push(format!("{path}: {keyword}"));
    let right_type = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("{path}: type {other}"),
    };
    if !right_type {
        return wrong("type");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong("enum");
    }
    if let Some(text) = value.as_str()
        && let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        wrong("pattern");
    }
    for (keyword, size) in [
        ("Length", value.as_str().map(|text| text.chars().count())),
        ("Items", value.as_array().map(Vec::len)),
        ("Properties", value.as_object().map(Map::len)),
    ] {
        let Some(size) = size else { continue };
        let bound = |which: &str| {
            schema[format!("{which}{keyword}")].as_u64().map(|bound| usize::try_from(bound).unwrap())
        };
        if bound("min").is_some_and(|least| size < least) {
            wrong(&format!("min{keyword}"));
        }
        if bound("max").is_some_and(|most| size > most) {
            wrong(&format!("max{keyword}"));
        }
    }
    if let Some(number) = value.as_f64() {
        if schema["minimum"].as_f64().is_some_and(|least| number < least) {
            wrong("minimum");
        }
        if schema["maximum"].as_f64().is_some_and(|most| number > most) {
            wrong("maximum");
        }
    }
    match value {
        Value::Object(entries) => properties(schema, entries, path, problems),
        Value::Array(items) => list(schema, items, path, problems),
        _ => {}
    }
}

fn properties(schema: &Value, entries: &Map<String, Value>, path: &str, problems: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !entries.contains_key(name.as_str().unwrap()) {
            problems.push(format!("{path}: required {}", name.as_str().unwrap()));
        }
    }
    for (name, value) in entries {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(property), _) => node(property, value, &path, problems),
            (None, Some(every)) => node(every, value, &path, problems),
            (None, None) => problems.push(format!("{path}: unknown")),
        }
    }
}

fn list(schema: &Value, items: &[Value], path: &str, problems: &mut Vec<String>) {
    for item in items {
        node(&schema["items"], item, &format!("{path}[]"), problems);
    }
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            Some(keys.iter().map(|key| item[key.as_str().unwrap()].to_string()).collect::<Vec<_>>())
        }
        Some("set") => Some(vec![item.to_string()]),
        _ => None,
    };
    let identities: Vec<_> = items.iter().filter_map(identity).collect();
    if identities.iter().collect::<BTreeSet<_>>().len() < identities.len() {
        problems.push(format!("{path}: duplicate"));
    }
}

/// Calls `visit` with the path and the schema of `schema` itself and of every node below it.
pub(crate) fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(property, &path, visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(every) = schema.get("additionalProperties") {
        walk(every, &format!("{path}.*"), visit);
    }
}

/// Returns the path with `[]` in place of each index.
pub(crate) fn without_indices(path: &str) -> String {
    Regex::new(r"\[\d+\]").unwrap().replace_all(path, "[]").into_owned()
}
