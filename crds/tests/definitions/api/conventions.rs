//! Conventions that every node of the three schemas follows.

use flutecast_crds::definition::CrdKind;
use serde_json::Value;

use super::support::walk;

/// Calls `visit` with the kind, the path and the schema of every node.
fn every_node(mut visit: impl FnMut(CrdKind, &str, &Value)) {
    for kind in CrdKind::ALL {
        walk(&kind.schema().unwrap(), "", &mut |path, schema| visit(kind, path, schema));
    }
}

fn in_spec(path: &str) -> bool {
    path.starts_with("spec")
}

#[test]
fn every_node_has_one_type_and_every_field_a_description() {
    every_node(|kind, path, schema| {
        assert!(schema["type"].is_string(), "{kind:?} {path}: {}", schema["type"]);
        assert!(schema.get("nullable").is_none(), "{kind:?} {path} is nullable");
        let is_field = !path.is_empty() && !path.ends_with("[]") && !path.ends_with('*');
        if is_field {
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{kind:?} {path}: {description:?} is no sentence");
            assert!(!description.contains('\n'), "{kind:?} {path}: line break in {description:?}");
        }
    });
}

/// The API server estimates the cost of a rule from the bounds of the values that it reads.
#[test]
fn every_value_in_a_spec_is_bounded() {
    every_node(|kind, path, schema| {
        if !in_spec(path) {
            return;
        }
        let bounded = match schema["type"].as_str().unwrap() {
            "string" => schema["maxLength"].is_u64() || schema["enum"].is_array(),
            "array" => schema["maxItems"].is_u64(),
            "integer" => schema["minimum"].is_number() && schema["maximum"].is_number(),
            "object" => schema.get("additionalProperties").is_none() || schema["maxProperties"].is_u64(),
            _ => true,
        };
        assert!(bounded, "{kind:?} {path} has no bound: {schema}");
    });
}

#[test]
fn lists_of_objects_have_keys_and_no_list_contains_defaults() {
    every_node(|kind, path, schema| {
        if schema["type"] == "array" && schema["items"]["type"] == "object" {
            assert_eq!(schema["x-kubernetes-list-type"], "map", "{kind:?} {path}");
        }
        if path.contains("[]") {
            assert!(schema.get("default").is_none(), "{kind:?} {path} has a default inside a list");
        }
    });
}

#[test]
fn every_rule_has_a_message_and_an_existing_field_path() {
    every_node(|kind, path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_default();
            assert!(message.len() > 10 && !message.contains('\n'), "{kind:?} {path}: {rule}");
            let Some(field_path) = rule["fieldPath"].as_str() else { continue };
            let mut at = schema;
            for field in field_path.trim_start_matches('.').split('.') {
                at = at["properties"]
                    .get(field)
                    .unwrap_or_else(|| panic!("{kind:?} {path}: {field_path} is no field"));
            }
        }
    });
}

#[test]
fn kinds_have_short_names_categories_and_columns() {
    for kind in CrdKind::ALL {
        let definition = serde_json::to_value(kind.definition().unwrap()).unwrap();
        assert_eq!(definition["spec"]["names"]["categories"], serde_json::json!(["flutecast"]));
        assert_eq!(definition["spec"]["scope"], "Namespaced");
        let short = match kind {
            CrdKind::Tenant => "ft",
            CrdKind::Device => "fd",
            CrdKind::PushFormat => "fpf",
        };
        assert_eq!(definition["spec"]["names"]["shortNames"], serde_json::json!([short]));
        let version = &definition["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        let columns: Vec<&str> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        let wanted: &[&str] = match kind {
            CrdKind::Tenant => &["Name", "Stream", "Devices", "Ready", "Reason", "Since", "Message", "Age"],
            CrdKind::Device => &[
                "Tenant", "Code", "IotId", "Presence", "For", "Messages", "Ready", "Reason", "Since",
                "Message", "Age",
            ],
            CrdKind::PushFormat => {
                &["Codec", "Delivery", "Channels", "Ready", "Reason", "Since", "Message", "Age"]
            }
        };
        assert_eq!(columns, wanted);
    }
}
