//! The result of building change by change equals that of building at once.

use flutecast_crds::{Device, PushFormat, Tenant};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::controller::build;
use crate::index::Index;
use crate::watch::Event;

/// A change of the objects.
#[derive(Debug, Clone)]
enum Step {
    Tenant {
        name: u8,
        namespace: u8,
        quota: u8,
    },
    Device {
        name: u8,
        tenant: u8,
        code: u8,
        format: u8,
        namespace: u8,
    },
    Format {
        name: u8,
        is_right: bool,
    },
    DeleteTenant(u8, u8),
    DeleteDevice(u8, u8),
    DeleteFormat(u8),
    /// A reconcile of the changes so far.
    Build,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0..2_u8, 0..2_u8, 0..4_u8)
            .prop_map(|(name, namespace, quota)| Step::Tenant { name, namespace, quota }),
        6 => (0..6_u8, 0..2_u8, 0..4_u8, 0..2_u8, 0..2_u8).prop_map(|numbers| {
            let (name, tenant, code, format, namespace) = numbers;
            Step::Device { name, tenant, code, format, namespace }
        }),
        2 => (0..2_u8, any::<bool>()).prop_map(|(name, is_right)| Step::Format { name, is_right }),
        1 => (0..2_u8, 0..2_u8).prop_map(|(name, namespace)| Step::DeleteTenant(name, namespace)),
        2 => (0..6_u8, 0..2_u8).prop_map(|(name, namespace)| Step::DeleteDevice(name, namespace)),
        1 => (0..2_u8).prop_map(Step::DeleteFormat),
        5 => Just(Step::Build),
    ];
    prop::collection::vec(step, 0..40)
}

/// An object of version `at`.
fn meta(name: &str, namespace: u8, at: usize) -> Value {
    json!({
        "name": name, "namespace": format!("n{namespace}"), "uid": format!("n{namespace}-{name}"),
        "resourceVersion": at.to_string(), "generation": at, "creationTimestamp": "2026-11-23T00:00:00Z",
    })
}

fn apply<K: serde::de::DeserializeOwned>(object: Value) -> Event<K> {
    Event::Apply(serde_json::from_value(object).unwrap())
}

fn delete<K>(name: &str, namespace: u8) -> Event<K> {
    Event::Delete(serde_json::from_value(meta(name, namespace, 0)).unwrap())
}

fn take(index: &mut Index, step: &Step, at: usize) {
    match step {
        Step::Tenant { name, namespace, quota } => index.apply_tenant(apply::<Tenant>(json!({
            "metadata": meta(&format!("t{name}"), *namespace, at), "spec": {"quota": {"maxDevices": quota}},
        }))),
        Step::Device { name, tenant, code, format, namespace } => {
            index.apply_device(apply::<Device>(json!({
                "metadata": meta(&format!("d{name}"), *namespace, at),
                "spec": {"tenant": format!("t{tenant}"), "deviceCode": format!("C-{code}"),
                    "channels": [{"name": "power", "format": format!("f{format}")}]},
            })))
        }
        Step::Format { name, is_right } => index.apply_format(apply::<PushFormat>(json!({
            "metadata": meta(&format!("f{name}"), 0, at),
            "spec": {"fields": [
                {"name": "on", "pointer": if *is_right { "/on" } else { "on" }, "type": "Bool"},
            ]},
        }))),
        Step::DeleteTenant(name, namespace) => index.apply_tenant(delete(&format!("t{name}"), *namespace)),
        Step::DeleteDevice(name, namespace) => index.apply_device(delete(&format!("d{name}"), *namespace)),
        Step::DeleteFormat(name) => index.apply_format(delete(&format!("f{name}"), 0)),
        Step::Build => false,
    };
}

/// Reconciles as the controller does. Returns what was looked at.
fn reconcile(cache: &mut BuildCache, index: &mut Index) -> DirtySet {
    let mut dirty = std::mem::take(&mut index.dirty);
    if dirty.needs_building() {
        let objects = index.objects(&dirty);
        let built =
            build::build_upon(cache.built(), crate::controller::validate::validate(&objects), &objects);
        cache
            .merge(built, &mut dirty, |key| index.devices.get(key).is_some_and(|entry| entry.object.is_ok()));
    }
    dirty
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn change_by_change_is_all_at_once(steps in steps()) {
        let (mut cache, mut index) = (BuildCache::default(), Index::default());
        // At its start, an operator builds everything.
        index.dirty.merge(DirtySet::everything());
        reconcile(&mut cache, &mut index);
        let mut whole = Built::default();
        for (at, step) in steps.iter().chain([&Step::Build]).enumerate() {
            take(&mut index, step, at + 1);
            if !matches!(step, Step::Build) {
                continue;
            }
            let before = cache.built().clone();
            let dirty = reconcile(&mut cache, &mut index);
            let objects = index.objects(&DirtySet::everything());
            let built = cache.built();
            whole =
                build::build_upon(&whole, crate::controller::validate::validate(&objects), &objects);
            prop_assert_eq!(built, &whole);
            // Objects whose outcome changed are looked at.
            for (object, outcome) in built.outcomes.iter() {
                let key = (object.namespace.clone(), object.name.clone());
                let is_same = before.outcomes.get(object) == Some(outcome)
                    && before.iot_ids.get(&key) == built.iot_ids.get(&key);
                let is_looked_at = dirty.all || dirty.touched.contains(&(object.kind, key));
                prop_assert!(is_same || is_looked_at || object.kind == Kind::Tenant, "{object:?} {dirty:?}");
            }
        }
    }
}
