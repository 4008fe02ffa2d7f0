//! Objects that an API server would refuse are refused in a folder too, with file, line, document, object and
//! field.

use super::manifests::{device, format, tenant};
use super::{Folder, check};

/// Checks the outcome of a valid Device with `from` replaced by `to`.
#[track_caller]
fn check_device(from: &str, to: &str, expected: &str) {
    let good = device("d1", "demo", "C-1", "on-off");
    assert!(good.contains(from), "{from:?} is not in {good}");
    check(&good.replace(from, to), "Device/d1", expected);
}

#[test]
fn each_check_of_the_schema() {
    check_device("  tenant: demo\n", "", "Refused InvalidObject: spec.tenant: is missing (at plant/a.yaml:");
    check_device(
        "tenant: demo",
        "tenant: 7",
        "spec.tenant: 7 is not a string; put it in quotes if it is meant as text (at plant/a.yaml:5 \
         (document 1))",
    );
    check_device(
        "tenant: demo",
        "tenent: demo",
        "spec.tenent: is not a field; there are channels, deviceCode, iotId, tenant (at plant/a.yaml:5",
    );
    check_device(
        "deviceCode: C-1",
        "deviceCode: 'C 1'",
        "spec.deviceCode: \"C 1\" is not right; it needs letters, digits",
    );
    check_device(
        "deviceCode: C-1",
        &format!("deviceCode: {}", "C".repeat(65)),
        "spec.deviceCode: has 65 characters; it may have 64 at most",
    );
    check_device(
        "  channels:\n  - {name: power, format: on-off}\n",
        "  channels: power\n",
        "spec.channels: \"power\" is not a list",
    );
    check_device(
        "- {name: power, format: on-off}\n",
        "- power\n",
        "spec.channels[0]: \"power\" is not a set of fields",
    );
    check_device(
        "- {name: power, format: on-off}\n",
        "- {name: power, format: on-off}\n  - {name: power, format: x}\n",
        "spec.channels[1]: \"power\" stands here twice",
    );
    check_device(
        "format: on-off",
        "format: on-off, staleAfter: 10 parsecs",
        "spec.channels[0].staleAfter: \"10 parsecs\" is not right; it needs whole hours",
    );
    check_device(
        "kind: Device",
        "kind: Device\nsepc: {}",
        "sepc: is not a field; there are apiVersion, kind, metadata, spec, status (at plant/a.yaml:3",
    );
    check_device(
        "metadata: {name: d1}",
        "metadata: {name: d1, labels: {line: 1}}",
        "InvalidObject: metadata.labels.line: 1 is not a string",
    );
}

#[test]
fn errors_without_an_object_are_about_the_file() {
    let good = device("d1", "demo", "C-1", "on-off");
    let file =
        |from: &str, to: &str, expected: &str| check(&good.replace(from, to), "File/plant/a.yaml", expected);
    file("name: d1", "nome: d1", "InvalidObject: metadata.name: is missing");
    file("name: d1", "name: D1", "InvalidObject: metadata.name: \"D1\" is not a name");
    file(
        "kind: Device",
        "kind: Devise",
        "InvalidObject: kind: \"Devise\" is unknown; there are Tenant, Device and PushFormat (at \
         plant/a.yaml:2 (document 1))",
    );
    file(
        "v1alpha1",
        "v2",
        "InvalidObject: apiVersion: \"flutecast.io/v2\" is unknown; write flutecast.io/v1alpha1",
    );
    file(
        "apiVersion: flutecast.io/v1alpha1\n",
        "",
        "InvalidObject: apiVersion: is missing; write apiVersion: flutecast.io/v1alpha1",
    );
    file("spec:\n", "spec: [\n", "Degraded InvalidYaml: plant/a.yaml:");
}

#[test]
fn numbers_enums_and_rules() {
    check(
        &tenant("demo", "retention: {replicas: 9}"),
        "Tenant/demo",
        "spec.retention.replicas: 9 is too large; it may be 5 at most",
    );
    check(
        &tenant("demo", "retention: {replicas: two}"),
        "Tenant/demo",
        "spec.retention.replicas: \"two\" is not a whole number",
    );
    check(
        &tenant("demo", "retention: {storage: Tape}"),
        "Tenant/demo",
        "spec.retention.storage: \"Tape\" is not one of \"File\", \"Memory\"",
    );
    check(
        &tenant("demo", "access: {anonymous: maybe}"),
        "Tenant/demo",
        "spec.access.anonymous: \"maybe\" is not true or false",
    );
    check(
        &tenant("demo", "retention: {maxAge: 1ms}"),
        "Tenant/demo",
        "Refused InvalidObject: spec.retention.maxAge",
    );
    let both = format("f").replace("type: Bool", "type: Bool, expression: 'true'");
    check(&both, "PushFormat/f", "Refused InvalidObject: spec.fields[0]");
    let words = format("f").replace("type: Bool", "type: Bool, otherwise: unknown");
    check(&words, "PushFormat/f", "otherwise is only for type Enum");
    let record = format!("{}  record: {{merge: true}}\n", format("f"));
    check(&record, "PushFormat/f", "record is only for policy Latest");
    check(&record.replace("Every", "Latest"), "PushFormat/f", "Accepted");
    // A field that is null counts as absent, as on an API server.
    check(&tenant("demo", "quota: null"), "Tenant/demo", "Accepted");
}

#[test]
fn every_pattern_of_the_schema_is_understood() {
    for kind in flutecast_crds::definition::CrdKind::ALL {
        let schema = kind.schema().unwrap();
        let mut patterns = Vec::new();
        collect(&schema, &mut patterns);
        assert!(!patterns.is_empty() && schema["properties"]["spec"].is_object(), "{kind:?}");
        for pattern in patterns {
            regex::Regex::new(&pattern).unwrap();
        }
    }
}

fn collect(schema: &serde_json::Value, patterns: &mut Vec<String>) {
    if let Some(pattern) = schema["pattern"].as_str() {
        patterns.push(pattern.to_owned());
    }
    match schema {
        serde_json::Value::Object(entries) => entries.values().for_each(|value| collect(value, patterns)),
        serde_json::Value::Array(items) => items.iter().for_each(|value| collect(value, patterns)),
        _ => {}
    }
}

#[test]
fn the_items_of_a_list_are_objects() {
    let items: Vec<String> = [
        tenant("demo", ""),
        format("on-off"),
        device("d1", "demo", "C-1", "on-off"),
        device("d2", "demo", "", "on-off"),
    ]
    .iter()
    .map(|item| {
        let mut lines = item.lines();
        let first = format!("- {}\n", lines.next().unwrap());
        lines.fold(first, |text, line| format!("{text}  {line}\n"))
    })
    .collect();
    let yaml = format!("apiVersion: v1\nkind: List\nitems:\n{}", items.concat());
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Refused InvalidObject: spec.deviceCode");
    check(&yaml, "Device/d2", "(at plant/a.yaml:");
}

#[test]
fn objects_of_other_groups_are_ignored() {
    let mut folder = Folder::default();
    folder.load(&[(
        "a.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {anything: [1]}\n",
    )]);
    assert_eq!(folder.outcomes(), "");
}

#[test]
fn an_invalid_secret_is_not_shown() {
    let yaml = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {wall: 'hunter2 hunter2 hunter2'}\n";
    check(yaml, "Secret/s", "Refused InvalidObject: data.wall: is not base64");
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", yaml)]);
    assert!(!folder.outcomes().contains("hunter2"));
}
