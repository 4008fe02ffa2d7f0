//! A change to the definitions must not break what API servers store. The definitions of the last release are
//! in `crds/released`; crds/released/README.md says how they are moved on. The same on a real API server:
//! operator/tests/kube_stored.rs.

mod cases;
mod check;

use std::fs;
use std::path::Path;

use flutecast_crds::definition::CrdKind;
use serde_json::Value;

/// Changes that the comparison can't prove to be harmless, though they are: where, what, and why no stored
/// object is hurt.
const HARMLESS: [(&str, &str, &str); 0] = [];

const WHAT_TO_DO: &str = "An object that was stored by the last release would be refused, lose data or mean something else.\n\
    Either change it so that whatever was taken is taken still (keep the field, widen instead of narrow, make the new field\n\
    optional), or add an API version with a conversion. If no stored object can be hurt, say why in HARMLESS\n\
    (crds/tests/definitions/stored/mod.rs).";

#[test]
fn what_the_last_release_stored_stays_valid() {
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

/// The definitions are compared with something: a baseline that nothing breaks would be an empty one.
#[test]
fn a_change_to_the_real_definitions_is_noticed() {
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
