//! Charts that are rendered by the real helm.

use std::path::PathBuf;

use flutecast_testbed::Helm;
use serde_json::Value;

/// Returns the repository's root.
pub(crate) fn root() -> PathBuf {
    flutecast_testkit::in_repository("")
}

/// Returns the path of a chart.
pub(crate) fn chart(name: &str) -> String {
    root().join("charts").join(name).display().to_string()
}

pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Renders `charts/flutecast` as release `factory` in the namespace `plant-1`. `values` have the syntax of
/// `--set-json`.
pub(crate) fn rendered(values: &[&str]) -> Vec<Value> {
    documents(&template(values).unwrap())
}

pub(crate) fn template(values: &[&str]) -> anyhow::Result<String> {
    let helm = Helm::new(None)?;
    let chart = chart("flutecast");
    let mut args = vec!["template", "factory", &chart, "--namespace", "plant-1"];
    for value in values {
        args.extend(["--set-json", value]);
    }
    Ok(helm.run(&args)?.stdout)
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(yaml).filter(|value| !value.is_null()).collect()
}

/// Returns the only object of this kind and name.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found =
        objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let first = found.next().unwrap_or_else(|| {
        let names: Vec<_> = objects
            .iter()
            .map(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]))
            .collect();
        panic!("no {kind} {name} in {names:?}")
    });
    assert!(found.next().is_none(), "two {kind} {name}");
    first
}
