//! Each kind of change to a definition, with the result of the comparison.

use serde_json::{Value, json};

use super::check::breaks;

/// Returns a definition with each keyword.
fn definition() -> Value {
    json!({"spec": {
        "group": "flutecast.io",
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things", "singular": "thing", "shortNames": ["th"],
            "categories": ["all"]},
        "versions": [{
            "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                "spec": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 32, "pattern": "^a"},
                    "count": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9, "default": 3},
                    "mode": {"type": "string", "enum": ["A", "B"]},
                    "list": {"type": "array", "minItems": 1, "maxItems": 4, "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                    "words": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string",
                        "maxLength": 8}},
                    "free": {"type": "object", "nullable": true,
                        "x-kubernetes-preserve-unknown-fields": true},
                }, "x-kubernetes-validations": [{"rule": "self.name != 'x'", "message": "no x"}]},
                "status": {"type": "object", "properties": {"seen": {"type": "integer", "format": "int64"}}},
            }}},
        }],
    }})
}

const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

/// Returns the result of the comparison after the value at `pointer` is set to `value`, or removed if it is
/// null.
fn changed(pointer: &str, value: Value) -> Vec<String> {
    let mut new = definition();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = new.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} isn't there"));
    match parent {
        Value::Object(parent) if value.is_null() => {
            assert!(parent.remove(name).is_some(), "{pointer} isn't there")
        }
        Value::Object(parent) => assert_ne!(parent.insert(name.to_owned(), value.clone()), Some(value)),
        Value::Array(parent) if value.is_null() => drop(parent.remove(name.parse().unwrap())),
        Value::Array(parent) => parent[name.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer} is in no object"),
    }
    breaks(&definition(), &new).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(pointer: &str, value: Value, said: &str) {
    assert_eq!(changed(pointer, value), [said], "{pointer}");
}

#[track_caller]
fn taken(pointer: &str, value: Value) {
    assert_eq!(changed(pointer, value), [""; 0], "{pointer}");
}

fn spec(path: &str) -> String {
    format!("{SPEC}{path}")
}

#[test]
fn equal_definitions_break_nothing() {
    assert_eq!(breaks(&definition(), &definition()), []);
}

#[test]
fn removed_fields_are_reported() {
    refused(
        &spec("/properties/mode"),
        Value::Null,
        "Thing v1 spec.mode: the field is removed: what is stored in it gets lost",
    );
    refused(
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/seen",
        Value::Null,
        "Thing v1 status.seen: the field is removed: what is stored in it gets lost",
    );
    taken(&spec("/properties/more"), json!({"type": "string", "maxLength": 4, "default": "a"}));
}

#[test]
fn types_may_only_widen() {
    refused(
        &spec("/properties/name/type"),
        json!("integer"),
        "Thing v1 spec.name: type is \"integer\" instead of \"string\"",
    );
    assert_eq!(
        changed(
            &spec("/properties/count"),
            json!({"type": "number", "minimum": 1, "maximum": 9, "default": 3})
        ),
        [""; 0]
    );
}

#[test]
fn enums_may_only_grow() {
    refused(&spec("/properties/mode/enum"), json!(["A"]), "Thing v1 spec.mode: enum has no \"B\" any more");
    refused(
        &spec("/properties/name/enum"),
        json!(["a"]),
        "Thing v1 spec.name: enum is new: other values were taken",
    );
    taken(&spec("/properties/mode/enum"), json!(["B", "A", "C"]));
    taken(&spec("/properties/mode/enum"), Value::Null);
}

#[test]
fn bounds_may_only_widen() {
    for (path, value, said) in [
        ("/properties/name/maxLength", json!(31), "spec.name: maxLength is 31 instead of 32"),
        ("/properties/name/minLength", json!(2), "spec.name: minLength is 2 instead of 1"),
        ("/properties/count/minimum", json!(2), "spec.count: minimum is 2 instead of 1"),
        ("/properties/count/maximum", json!(8.5), "spec.count: maximum is 8.5 instead of 9"),
        ("/properties/list/maxItems", json!(3), "spec.list: maxItems is 3 instead of 4"),
        ("/properties/list/minItems", json!(2), "spec.list: minItems is 2 instead of 1"),
        ("/properties/words/maxProperties", json!(1), "spec.words: maxProperties is 1 instead of 2"),
        ("/properties/words/minProperties", json!(1), "spec.words: minProperties 1 is new"),
        ("/properties/mode/maxLength", json!(1), "spec.mode: maxLength 1 is new"),
        ("/properties/count/multipleOf", json!(2), "spec.count: multipleOf is 2 instead of nothing"),
        (
            "/properties/count/exclusiveMinimum",
            json!(true),
            "spec.count: exclusiveMinimum is true instead of nothing",
        ),
    ] {
        refused(&spec(path), value, &format!("Thing v1 {said}"));
    }
    taken(&spec("/properties/name/maxLength"), json!(33));
    taken(&spec("/properties/name/maxLength"), Value::Null);
    taken(&spec("/properties/count/minimum"), json!(0));
    taken(&spec("/properties/words/minProperties"), json!(0));
}

#[test]
fn patterns_may_only_be_removed_and_formats_only_widen() {
    refused(
        &spec("/properties/name/pattern"),
        json!("^b"),
        "Thing v1 spec.name: pattern is \"^b\" instead of \"^a\"",
    );
    refused(
        &spec("/properties/mode/pattern"),
        json!("^b"),
        "Thing v1 spec.mode: pattern is \"^b\" instead of nothing",
    );
    taken(&spec("/properties/name/pattern"), Value::Null);
    refused(
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/seen/format",
        json!("int32"),
        "Thing v1 status.seen: format is \"int32\" instead of \"int64\"",
    );
    taken(&spec("/properties/count/format"), json!("int64"));
}

#[test]
fn newly_required_fields_are_reported() {
    refused(&spec("/required"), json!(["name", "mode"]), "Thing v1 spec: mode is newly required");
    taken(&spec("/required"), json!(["name", "count"]));
    taken(&spec("/required"), Value::Null);
}

#[test]
fn changed_defaults_are_reported() {
    refused(&spec("/properties/count/default"), json!(4), "Thing v1 spec.count: default is 4 instead of 3");
    refused(
        &spec("/properties/count/default"),
        Value::Null,
        "Thing v1 spec.count: default is nothing instead of 3",
    );
    refused(
        &spec("/properties/mode/default"),
        json!("A"),
        "Thing v1 spec.mode: default is \"A\" instead of nothing",
    );
}

#[test]
fn new_and_changed_rules_are_reported() {
    let rules = |rules: &[&str]| Value::from_iter(rules.iter().map(|rule| json!({"rule": rule})));
    let old = "self.name != 'x'";
    let path = spec("/x-kubernetes-validations");
    refused(
        &path,
        rules(&["self.name != 'y'"]),
        "Thing v1 spec: the rule is new or changed: self.name != 'y'",
    );
    refused(
        &path,
        rules(&[old, "has(self.mode)"]),
        "Thing v1 spec: the rule is new or changed: has(self.mode)",
    );
    refused(
        &path,
        rules(&[old, "!has(self.mode) || self.count > 1"]),
        "Thing v1 spec: the rule is new or changed: !has(self.mode) || self.count > 1",
    );
    taken(&path, Value::Null);
    // The message is not part of the rule.
    taken(&spec("/x-kubernetes-validations/0/message"), json!("never x"));
}

#[test]
fn rules_about_new_fields_are_accepted() {
    let with = |field: Value, rule: &str| {
        let mut new = definition();
        let spec = new.pointer_mut(SPEC).unwrap();
        spec["properties"]["more"] = field;
        spec["x-kubernetes-validations"].as_array_mut().unwrap().push(json!({"rule": rule}));
        breaks(&definition(), &new)
    };
    let optional = json!({"type": "object", "properties": {"deep": {"type": "string"}}});
    assert_eq!(with(optional.clone(), "!has(self.more) || has(self.mode)"), []);
    assert_eq!(with(optional.clone(), "!has(self.more.deep) || has(self.mode) && self.count > 1"), []);
    assert_eq!(with(optional, "!has(self.more) || has(self.mode) ? self.count > 1 : false").len(), 1);
    assert_eq!(with(json!({"type": "string", "default": "a"}), "!has(self.more) || has(self.mode)").len(), 1);
    assert_eq!(with(json!({"type": "string"}), "has(self.mode) || !has(self.more)").len(), 1);
}

#[test]
fn changed_types_of_lists_and_maps_are_reported() {
    for (path, value, said) in [
        (
            "/properties/list/x-kubernetes-list-type",
            json!("atomic"),
            "spec.list: x-kubernetes-list-type is \"atomic\" instead of \"map\"",
        ),
        (
            "/properties/list/x-kubernetes-list-map-keys",
            json!(["name", "b"]),
            "spec.list: x-kubernetes-list-map-keys is [\"name\",\"b\"] instead of [\"name\"]",
        ),
        (
            "/properties/free/x-kubernetes-map-type",
            json!("atomic"),
            "spec.free: x-kubernetes-map-type is \"atomic\" instead of nothing",
        ),
        ("/properties/free/nullable", Value::Null, "spec.free: nullable is no longer true"),
        (
            "/properties/free/x-kubernetes-preserve-unknown-fields",
            Value::Null,
            "spec.free: x-kubernetes-preserve-unknown-fields is no longer true",
        ),
        (
            "/properties/words/additionalProperties/maxLength",
            json!(7),
            "spec.words.*: maxLength is 7 instead of 8",
        ),
        (
            "/properties/words/additionalProperties",
            Value::Null,
            "spec.words: additionalProperties is nothing instead of {\"maxLength\":8,\"type\":\"string\"}",
        ),
        (
            "/properties/list/items/properties/name",
            Value::Null,
            "spec.list[].name: the field is removed: what is stored in it gets lost",
        ),
    ] {
        refused(&spec(path), value, &format!("Thing v1 {said}"));
    }
    taken(&spec("/properties/mode/nullable"), json!(true));
}

#[test]
fn changed_unknown_keywords_are_reported() {
    refused(
        &spec("/properties/mode/x-kubernetes-new"),
        json!(1),
        "Thing v1 spec.mode: x-kubernetes-new, which the comparison doesn't know, has changed",
    );
    refused(
        &spec("/properties/mode/anyOf"),
        json!([{"minLength": 1}]),
        "Thing v1 spec.mode: anyOf is [{\"minLength\":1}] instead of nothing",
    );
    taken(&spec("/properties/mode/description"), json!("What it does."));
}

#[test]
fn changed_names_scope_and_versions_are_reported() {
    for (path, value, said) in [
        ("/spec/scope", json!("Cluster"), "Thing: scope is \"Cluster\" instead of \"Namespaced\""),
        ("/spec/group", json!("b.io"), "Thing: group is \"b.io\" instead of \"flutecast.io\""),
        ("/spec/names/plural", json!("thinges"), "Thing: names/plural is \"thinges\" instead of \"things\""),
        ("/spec/names/shortNames", json!(["t"]), "Thing: names.shortNames has no th any more"),
        ("/spec/names/categories", json!([]), "Thing: names.categories has no all any more"),
        ("/spec/versions/0", Value::Null, "Thing v1: the version is removed"),
        ("/spec/versions/0/served", json!(false), "Thing v1: served is no longer true"),
        ("/spec/versions/0/storage", json!(false), "Thing v1: storage is no longer true"),
        (
            "/spec/versions/0/subresources/status",
            Value::Null,
            "Thing v1: the subresource status is removed or changed",
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            "Thing: conversion is {\"strategy\":\"Webhook\"} instead of nothing",
        ),
    ] {
        refused(path, value, said);
    }
    taken("/spec/names/shortNames", json!(["th", "t"]));
    let mut new = definition();
    let mut next = new["spec"]["versions"][0].clone();
    next["name"] = json!("v2");
    next["storage"] = json!(false);
    new["spec"]["versions"].as_array_mut().unwrap().push(next);
    assert_eq!(breaks(&definition(), &new), []);
}
