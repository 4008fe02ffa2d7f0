//! The schemas and rules accept every manifest in the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use flutecast_crds::definition::CrdKind;
use flutecast_crds::{API_VERSION, Device, Duration, PushFormat, Quantity, Tenant};
use regex::Regex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::support::{broken_rules, broken_structure, repository, walk};

/// Returns the YAML files below a folder, but for the templates of a chart.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("templates") {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the objects of our kinds below a folder of `manifests`, with their files.
fn objects(folder: &str) -> Vec<(PathBuf, CrdKind, Value)> {
    let mut all = Vec::new();
    for path in files(&repository().join("manifests").join(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> =
            serde_yaml::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!documents.is_empty(), "{} is empty", path.display());
        for document in documents {
            if document["apiVersion"] == API_VERSION {
                let kind = CrdKind::from_name(document["kind"].as_str().unwrap()).unwrap();
                all.push((path.clone(), kind, document));
            }
        }
    }
    all
}

#[test]
fn every_manifest_is_accepted() {
    let all = objects("");
    assert!(all.len() > 15, "only {} objects were found", all.len());
    for (path, kind, object) in all {
        let at = path.display();
        assert!(object["metadata"]["namespace"].is_null(), "{at}: whoever applies it chooses the namespace");
        assert_eq!(broken_structure(kind, &object), [""; 0], "{at}");
        let errors = broken_rules(kind, &object, None);
        assert!(errors.is_empty(), "{at}: {errors:#?}");
        match kind {
            CrdKind::Tenant => round_trip::<Tenant>(&path, &object),
            CrdKind::Device => round_trip::<Device>(&path, &object),
            CrdKind::PushFormat => round_trip::<PushFormat>(&path, &object),
        }
    }
}

/// Asserts that the types keep everything in the manifest.
fn round_trip<T: DeserializeOwned + Serialize>(path: &Path, object: &Value) {
    let typed: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let written = serde_json::to_value(&typed).unwrap();
    holds(&written, object, path);
}

fn holds(written: &Value, original: &Value, path: &Path) {
    match (written, original) {
        (Value::Object(written), Value::Object(original)) => {
            for (name, value) in original {
                let found =
                    written.get(name).unwrap_or_else(|| panic!("{}: {name} was lost", path.display()));
                holds(found, value, path);
            }
        }
        (Value::Array(written), Value::Array(original)) => {
            assert_eq!(written.len(), original.len(), "{}", path.display());
            written.iter().zip(original).for_each(|(written, original)| holds(written, original, path));
        }
        (Value::Number(written), Value::Number(original)) => assert_eq!(written.as_f64(), original.as_f64()),
        (Value::String(written), Value::String(original)) if written != original => {
            // 75s is written as 1m15s, 1024Mi as 1Gi.
            let same = match (written.parse::<Duration>(), written.parse::<Quantity>()) {
                (Ok(duration), _) => original.parse() == Ok(duration),
                (_, Ok(quantity)) => original.parse() == Ok(quantity),
                _ => false,
            };
            assert!(same, "{}: {original} became {written}", path.display());
        }
        _ => assert_eq!(written, original, "{}", path.display()),
    }
}

/// kubectl parses YAML 1.1, where a bare `on`, `off`, `yes`, `no`, `y` or `n` is a boolean.
#[test]
fn no_manifest_has_a_bare_word_that_is_a_boolean_in_yaml_1_1() {
    let bare = Regex::new(r"(?mi)^([^#\n]*(- +|: +|[\[{,] *)|) *(on|off|yes|no|y|n) *([,:}\]]|$)").unwrap();
    for path in files(&repository().join("manifests")) {
        let text = fs::read_to_string(&path).unwrap();
        if let Some(found) = bare.find(&text) {
            panic!("{}: put the word in quotes: {}", path.display(), found.as_str());
        }
    }
    for bad in ["a: on", "- {name: on, x: y}", "a: {x: off}", "- no", "a: [yes]", "{on: 1}", "on: 1"] {
        assert!(bare.is_match(bad), "{bad}");
    }
    for good in ["a: on-off", "# a: on", "a: \"on\"", "- {format: on-off, a: nothing}"] {
        assert!(!bare.is_match(good), "{good}");
    }
}

#[test]
fn the_references_of_the_demo_resolve_and_its_names_are_unique() {
    let mut named: BTreeMap<CrdKind, BTreeSet<String>> = BTreeMap::new();
    let mut codes = BTreeSet::new();
    let all = objects("demo");
    for (path, kind, object) in &all {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(named.entry(*kind).or_default().insert(name), "{}: the name is taken", path.display());
    }
    let mut used = BTreeSet::new();
    for (path, _, object) in all.iter().filter(|(_, kind, _)| *kind == CrdKind::Device) {
        let device: Device = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(device.metadata.labels.unwrap()["line"], "l1");
        assert!(named[&CrdKind::Tenant].contains(&device.spec.tenant), "{}", path.display());
        assert!(codes.insert(device.spec.device_code), "{}: the device code is taken", path.display());
        used.extend(device.spec.channels.into_iter().map(|channel| channel.format));
    }
    assert_eq!(
        codes.iter().map(String::as_str).collect::<Vec<_>>(),
        ["CORR-01", "DIE-01", "FLEX-01", "SLIT-01", "STACK-01"]
    );
    assert_eq!(used, named[&CrdKind::PushFormat], "every format is there and used");
}

#[test]
fn the_samples_show_every_field() {
    for kind in CrdKind::ALL {
        let mut shown = BTreeSet::new();
        for (_, _, object) in objects("samples").iter().filter(|(_, of, _)| *of == kind) {
            paths(&object["spec"], "spec", &mut shown);
        }
        walk(&kind.schema().unwrap(), "", &mut |path, _| {
            if path.starts_with("spec") && !path.ends_with('*') && !path.ends_with("[]") {
                assert!(shown.contains(path), "manifests/samples shows no {kind:?} with {path}");
            }
        });
    }
}

fn paths(value: &Value, path: &str, shown: &mut BTreeSet<String>) {
    shown.insert(path.to_owned());
    for (name, value) in value.as_object().into_iter().flatten() {
        paths(value, &format!("{path}.{name}"), shown);
    }
    for item in value.as_array().into_iter().flatten() {
        paths(item, &format!("{path}[]"), shown);
    }
}
