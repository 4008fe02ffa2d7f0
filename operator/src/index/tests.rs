//! The objects that a change concerns.

use flutecast_crds::Device;
use serde_json::json;

use super::*;
use crate::watch::{Event, Guarded, Unreadable};

fn device(name: &str, tenant: &str, format: &str, version: u32) -> Device {
    serde_json::from_value(json!({
        "apiVersion": "flutecast.io/v1alpha1", "kind": "Device",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(),
            "generation": 1, "creationTimestamp": "2026-11-23T00:00:00Z"},
        "spec": {"tenant": tenant, "deviceCode": name, "channels": [{"name": "power", "format": format}]},
    }))
    .unwrap()
}

fn format(name: &str, version: u32) -> flutecast_crds::PushFormat {
    serde_json::from_value(json!({
        "apiVersion": "flutecast.io/v1alpha1", "kind": "PushFormat",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(),
            "generation": version},
        "spec": {"fields": [{"name": "on", "pointer": "/on", "type": "Bool"}]},
    }))
    .unwrap()
}

fn apply<K>(object: K) -> Event<K> {
    Event::Apply(Box::new(object))
}

fn key(name: &str) -> Key {
    ("a".to_owned(), name.to_owned())
}

/// An index with two tenants' devices, of which nothing is left to be done.
fn settled() -> Index {
    let mut index = Index::default();
    index.apply_format(apply(format("on-off", 1)));
    index.apply_device(apply(device("d1", "t1", "on-off", 2)));
    index.apply_device(apply(device("d2", "t2", "other", 3)));
    std::mem::take(&mut index.dirty);
    index
}

#[test]
fn a_device_concerns_its_tenant_and_its_formats() {
    let mut index = settled();
    assert!(index.apply_device(apply(device("d3", "t1", "on-off", 4))));
    let dirty = std::mem::take(&mut index.dirty);
    assert!(!dirty.all && dirty.tenants.iter().eq(["t1"]) && dirty.formats.is_empty(), "{dirty:?}");
    assert!(dirty.touched.contains(&(Kind::PushFormat, key("on-off"))), "{dirty:?}");
    assert_eq!(index.channels_of(&key("on-off")), 2);
    // Only the devices of this tenant are built, and only the formats that they use.
    let objects = index.objects(&dirty);
    let names: Vec<&str> = objects.devices.iter().map(|device| device.meta.name.as_str()).collect();
    assert_eq!((names, objects.formats.len()), (vec!["d1", "d3"], 1));
}

#[test]
fn a_format_concerns_the_tenants_whose_devices_name_it() {
    let mut index = settled();
    assert!(index.apply_format(apply(format("on-off", 5))));
    let dirty = std::mem::take(&mut index.dirty);
    assert!(dirty.tenants.iter().eq(["t1"]) && dirty.formats.iter().eq([&key("on-off")]), "{dirty:?}");
    // One that isn't there yet, but is named.
    assert!(index.apply_format(apply(format("other", 6))));
    assert!(std::mem::take(&mut index.dirty).tenants.iter().eq(["t2"]));
}

#[test]
fn a_format_is_used_as_long_as_a_template_names_it() {
    let tenant = |version: u32, enrollment: serde_json::Value| -> flutecast_crds::Tenant {
        serde_json::from_value(json!({
            "apiVersion": "flutecast.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "t3", "namespace": "a", "uid": "uid-t3",
            "resourceVersion": version.to_string(), "generation": version},
            "spec": {"enrollment": enrollment},
        }))
        .unwrap()
    };
    let channels = json!([{"name": "power", "format": "new"}, {"name": "belt", "format": "new"}]);
    let mut index = settled();
    let is_used = |index: &Index| index.is_used(Kind::PushFormat, &key("new"));
    assert!(!is_used(&index));
    let automatic = tenant(4, json!({"policy": "Automatic", "template": {"channels": channels}}));
    index.apply_tenant(apply(automatic.clone()));
    assert!(is_used(&index) && index.tenants_using(Kind::PushFormat, &key("new")).eq([&key("t3")]));
    assert_eq!(index.channels_of(&key("new")), 2);
    // A format of another namespace is another format.
    assert!(!index.is_used(Kind::PushFormat, &("b".to_owned(), "new".to_owned())));
    index.apply_format(apply(format("new", 1)));
    std::mem::take(&mut index.dirty);
    // Its deletion concerns both it and its users.
    let mut going = format("new", 5);
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-23T00:00:00Z")).unwrap();
    index.apply_format(apply(going));
    assert!(std::mem::take(&mut index.dirty).touched.contains(&(Kind::Tenant, key("t3"))));
    index.apply_tenant(apply(tenant(6, json!({"policy": "Declared", "template": {"channels": channels}}))));
    assert!(is_used(&index), "who names it counts on it, whatever the policy is at the moment");
    index.apply_tenant(apply(tenant(7, json!({"policy": "Declared"}))));
    assert!(!is_used(&index) && index.channels_of(&key("new")) == 0);
    index.apply_tenant(apply(tenant(8, automatic.spec.enrollment.map(|spec| json!(spec)).unwrap())));
    assert!(is_used(&index));
    index.apply_tenant(Event::Delete(Box::new(tenant(9, json!({})).metadata)));
    assert!(!is_used(&index));
}

#[test]
fn a_status_concerns_nothing_but_itself() {
    let mut index = settled();
    let mut with_status = device("d1", "t1", "on-off", 4);
    with_status.status = serde_json::from_value(json!({"iotId": "abc"})).unwrap();
    assert!(index.apply_device(apply(with_status)));
    let dirty = std::mem::take(&mut index.dirty);
    assert!(!dirty.needs_building() && dirty.touched.len() == 1, "{dirty:?}");
    // A version that is older than what we know is no news.
    assert!(!index.apply_device(apply(device("d1", "t1", "on-off", 3))));
    assert_eq!(index.devices.get(&key("d1")).unwrap().status.iot_id.as_deref(), Some("abc"));
}

#[test]
fn a_deleted_device_leaves_no_reference() {
    let mut index = settled();
    let meta = device("d1", "t1", "on-off", 9).metadata;
    assert!(index.apply_device(Event::Delete(Box::new(meta.clone()))));
    assert!(std::mem::take(&mut index.dirty).tenants.iter().eq(["t1"]));
    assert_eq!((index.channels_of(&key("on-off")), index.devices_of("t1").count()), (0, 0));
    assert!(!index.apply_device(Event::Delete(Box::new(meta))));
}

#[test]
fn objects_missing_in_a_complete_list_are_removed() {
    let mut index = settled();
    let scopes = [None];
    assert!(!index.is_complete(&scopes, 0));
    index.apply_device(Event::Restart(None));
    index.apply_device(apply(device("d2", "t2", "other", 3)));
    assert!(index.apply_device(Event::Complete(None, 1)));
    assert!(index.devices.get(&key("d1")).is_none() && index.devices.get(&key("d2")).is_some());
    index.apply_tenant(Event::Complete(None, 1));
    index.apply_format(Event::Restart(None));
    index.apply_format(apply(format("on-off", 1)));
    index.apply_format(Event::Complete(None, 1));
    assert!(index.is_complete(&scopes, 0) && index.is_complete(&scopes, 1));
    // In the next term it is out of date, until each kind was listed again.
    assert!(!index.is_complete(&scopes, 2));
    index.apply_device(Event::Complete(None, 2));
    index.apply_tenant(Event::Complete(None, 2));
    assert!(!index.is_complete(&scopes, 2));
    index.apply_format(Event::Complete(None, 2));
    assert!(index.is_complete(&scopes, 2));
}

#[test]
fn a_list_of_one_namespace_does_not_affect_another() {
    let mut index = settled();
    let other = Some("b".to_owned());
    index.apply_device(Event::Restart(other.clone()));
    assert!(!index.apply_device(Event::Complete(other, 1)));
    assert!(index.devices.get(&key("d1")).is_some());
}

#[test]
fn one_broken_object_stops_no_other() {
    let mut index = settled();
    let broken: Guarded<Device> = serde_json::from_value(json!({
        "apiVersion": "flutecast.io/v1alpha1", "kind": "Device",
        "metadata": {"name": "d1", "namespace": "a", "uid": "uid-d1", "resourceVersion": "8"},
        "spec": {"channels": 7},
    }))
    .unwrap();
    assert!(index.apply_device(Event::Broken(Box::new(broken.0.unwrap_err()))));
    let dirty = std::mem::take(&mut index.dirty);
    assert!(dirty.tenants.iter().eq(["t1"]), "{dirty:?}");
    assert!(index.devices.get(&key("d1")).unwrap().object.is_err());
    assert_eq!(index.objects(&DirtySet::everything()).devices.len(), 1);
}

/// After a restart the operator knows of no other status, and would write it anew.
#[test]
fn an_object_that_can_not_be_read_has_its_status() {
    let mut index = Index::default();
    let status = json!({
        "observedGeneration": 3, "channels": 1,
        "inForce": {"generation": 2, "since": "2026-11-29T10:02:00Z"},
    });
    let broken: Guarded<flutecast_crds::PushFormat> = serde_json::from_value(json!({
        "apiVersion": "flutecast.io/v1alpha1", "kind": "PushFormat",
        "metadata": {"name": "on-off", "namespace": "a", "uid": "uid-on-off", "resourceVersion": "8"},
        "spec": {"fields": 7}, "status": status,
    }))
    .unwrap();
    assert!(index.apply_format(Event::Broken(Box::new(broken.0.unwrap_err()))));
    let known = &index.formats.get(&key("on-off")).unwrap().status;
    assert_eq!(serde_json::to_value(known).unwrap(), status);
}

#[test]
fn an_object_with_a_claim_is_older_than_others_of_the_same_second() {
    let mut index = settled();
    let mut holder = device("z-holder", "t1", "on-off", 4);
    holder.status = serde_json::from_value(json!({"iotId": "abc"})).unwrap();
    index.apply_device(apply(holder));
    index.apply_device(apply(device("a-newcomer", "t1", "on-off", 5)));
    let created = |name: &str| index.devices.get(&key(name)).unwrap().object.as_ref().unwrap().meta.created;
    assert!(created("z-holder") < created("a-newcomer"));
}

#[test]
fn a_secret_that_was_read_stays_while_it_is_forbidden() {
    let mut index = Index::default();
    let secret = || -> Secret {
        serde_json::from_value(
            json!({"metadata": {"name": "walls", "namespace": "a"}, "data": {"wall": "YQ=="}}),
        )
        .unwrap()
    };
    assert!(index.apply_tokens(key("walls"), Event::Forbidden));
    assert_eq!(index.token_secret(&key("walls")), Some(&TokenSecret::Forbidden));
    assert!(index.apply_tokens(key("walls"), apply(secret())));
    // An API server that starts says so too, before it knows its roles.
    assert!(!index.apply_tokens(key("walls"), Event::Forbidden));
    assert!(matches!(index.token_secret(&key("walls")), Some(TokenSecret::Held(_))));
    let scope = || Some("a".to_owned());
    // It was there all along, and then it went while the watch was off.
    assert!(!index.apply_tokens(key("walls"), Event::Restart(scope())));
    assert!(!index.apply_tokens(key("walls"), apply(secret())));
    assert!(!index.apply_tokens(key("walls"), Event::Complete(scope(), 1)));
    assert!(!index.apply_tokens(key("walls"), Event::Restart(scope())));
    assert!(index.apply_tokens(key("walls"), Event::Complete(scope(), 1)));
    assert_eq!(index.token_secret(&key("walls")), Some(&TokenSecret::Missing));
    assert!(index.apply_tokens(key("walls"), apply(secret())));
    assert!(index.apply_tokens(key("walls"), Event::Delete(Box::new(secret().metadata))));
    assert_eq!(index.token_secret(&key("walls")), Some(&TokenSecret::Missing));
    assert!(std::mem::take(&mut index.dirty).access);
}

#[test]
fn a_secret_of_an_earlier_turn_is_unknown_until_it_is_read_again() {
    let mut index = Index::default();
    let secret: Secret = serde_json::from_value(
        json!({"metadata": {"name": "walls", "namespace": "a"}, "data": {"wall": "YQ=="}}),
    )
    .unwrap();
    let scope = || Some("a".to_owned());
    let list = |index: &mut Index, term| {
        index.apply_tokens(key("walls"), Event::Restart(scope()));
        index.apply_tokens(key("walls"), apply(secret.clone()));
        index.apply_tokens(key("walls"), Event::Complete(scope(), term))
    };
    list(&mut index, 1);
    assert!(matches!(index.token_secret(&key("walls")), Some(TokenSecret::Held(_))));
    index.distrust_tokens(2);
    std::mem::take(&mut index.dirty);
    assert_eq!(index.token_secret(&key("walls")), None);
    // The end of a list that was begun before says nothing.
    assert!(!list(&mut index, 1) && index.token_secret(&key("walls")).is_none());
    assert!(list(&mut index, 2), "that it is the same is news");
    assert!(
        matches!(index.token_secret(&key("walls")), Some(TokenSecret::Held(_)))
            && std::mem::take(&mut index.dirty).access
    );
    // What was read stays, also in the next term, when it may not be read for a moment.
    index.distrust_tokens(3);
    assert!(index.apply_tokens(key("walls"), Event::Forbidden));
    assert!(matches!(index.token_secret(&key("walls")), Some(TokenSecret::Held(_))));
}

/// Its streams would be deleted as those of a Tenant that is gone.
#[test]
fn an_object_that_can_not_be_read_exists() {
    let mut index = settled();
    let left = |name: &str| {
        let meta =
            json!({"name": name, "namespace": "a", "uid": format!("uid-{name}"), "resourceVersion": "9"});
        let metadata = serde_json::from_value(meta).unwrap();
        Box::new(Unreadable { metadata, error: "unknown variant".to_owned(), ..Unreadable::default() })
    };
    index.apply_tenant(Event::Broken(left("t1")));
    index.apply_format(Event::Broken(left("on-off")));
    let dirty = std::mem::take(&mut index.dirty);
    let objects = index.objects(&dirty);
    assert!(objects.tenants.is_empty() && objects.formats.is_empty());
    assert!(objects.unreadable.contains(&(Kind::PushFormat, key("on-off"))));
    let valid = crate::controller::validate::validate(&objects);
    assert!(crate::controller::build::build(valid, &objects).existing.contains(&key("t1")));
}
