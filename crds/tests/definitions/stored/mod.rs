//! A change to the definitions must not break objects that API servers store. The definitions of the last
//! release are in `crds/released`; crds/released/README.md describes how they are updated.
//! operator/tests/api_server/stored.rs tests the same on an API server.

mod cases;
mod check;

use std::fs;
use std::path::Path;

use flutecast_crds::definition::CrdKind;
use serde_json::Value;

/// Harmless changes that the comparison reports: where, what, and why no stored object is affected.
const HARMLESS: [(&str, &str, &str); 0] = [];

const WHAT_TO_DO: &str = "An object that was stored by the last release would be refused, lose data or \
    change its meaning.\n\
    Either keep accepting what was accepted (keep the field, widen instead of narrowing, make the new field\n\
    optional), or add an API version with a conversion. If no stored object can be affected, say why in\n\
    HARMLESS (crds/tests/definitions/stored/mod.rs).";

#[test]
fn objects_of_the_last_release_stay_valid() {
    let mut told = Vec::new();
    for kind in CrdKind::ALL {
        let new = serde_json::to_value(kind.definition().unwrap()).unwrap();
        told.extend(check::breaks(&released(kind), &new));
    }
    for (at, what, why) in HARMLESS {
        assert!(why.len() > 20, "{at}: say why");
        let before = told.len();
        told.retain(|told| told.at != at || told.what != what);
        assert!(told.len() < before, "HARMLESS names a change that isn't there: {at}: {what}");
    }
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "\n  {}\n{WHAT_TO_DO}", told.join("\n  "));
}

/// Proves that the released definitions are not empty.
#[test]
fn a_removed_field_of_the_released_definitions_is_reported() {
    for (kind, field) in
        [(CrdKind::Tenant, "displayName"), (CrdKind::Device, "deviceCode"), (CrdKind::PushFormat, "fields")]
    {
        let old = released(kind);
        let mut new = old.clone();
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        assert!(new.pointer_mut(spec).unwrap().as_object_mut().unwrap().remove(field).is_some());
        let told = check::breaks(&old, &new);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].at, format!("{} v1alpha1 spec.{field}", kind.as_str()));
    }
}

fn released(kind: CrdKind) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("released").join(flutecast_crds::VERSION);
    let path = folder.join(kind.file_name());
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
