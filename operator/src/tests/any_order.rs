//! Properties over generated folders: the order of files doesn't matter, and one object doesn't affect
//! another.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::manifests::{device, format, tenant};
use super::{Folder, build};
use crate::controller::apply::documents::MappingDocuments;
use crate::controller::build::{Built, build_upon};
use crate::controller::validate::validate;
use crate::finding::Outcome;
use crate::object::Kind;
use crate::object::Objects;
use proptest::prelude::*;

/// A generated device. The ranges are small, so that codes, tenants and formats clash.
#[derive(Debug, Clone)]
struct Sketch {
    tenant: u8,
    code: u8,
    format: u8,
    pin: Option<u8>,
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let sketch = (0..4_u8, 0..6_u8, 0..4_u8, proptest::option::of(0..4_u8))
        .prop_map(|(tenant, code, format, pin)| Sketch { tenant, code, format, pin });
    proptest::collection::vec(sketch, 0..12)
}

fn objects(sketches: &[Sketch]) -> Objects {
    let mut yaml: Vec<String> = (0..3).map(|n| tenant(&format!("t{n}"), "quota: {maxDevices: 3}")).collect();
    yaml.extend((0..3).map(|n| format(&format!("f{n}"))));
    for (index, sketch) in sketches.iter().enumerate() {
        let mut device = device(
            &format!("d{index}"),
            &format!("t{}", sketch.tenant),
            &format!("C-{}", sketch.code),
            &format!("f{}", sketch.format),
        );
        if let Some(pin) = sketch.pin {
            device = device.replace("spec:\n", &format!("spec:\n  iotId: pin{pin}\n"));
        }
        yaml.push(device);
    }
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &yaml.join("---\n"))]);
    folder.manifests.objects().0
}

/// Returns the texts of all documents of the mapping.
fn texts(built: &Built) -> Vec<String> {
    let documents = MappingDocuments::of(built, &BTreeSet::new());
    let shards = documents.all_shards().map(|shard| shard.to_yaml().unwrap());
    shards.chain([documents.access.to_yaml().unwrap()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_order_gives_the_same(sketches in sketches(), seed in any::<u64>()) {
        let objects = objects(&sketches);
        let mut shuffled = objects.clone();
        shuffle(&mut shuffled.devices, seed);
        shuffle(&mut shuffled.tenants, seed.rotate_left(7));
        shuffle(&mut shuffled.formats, seed.rotate_left(13));
        let one = build(&objects);
        let other = build(&shuffled);
        prop_assert_eq!(texts(&one), texts(&other));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn each_device_is_mapped_or_has_a_finding(sketches in sketches()) {
        let objects = objects(&sketches);
        let built = build(&objects);
        let shards = built.tenants.values().flat_map(|tenant| &tenant.shards);
        let devices = shards.flat_map(|shard| shard.devices.values());
        let mapped: Vec<&str> = devices.map(|device| device.name.as_str()).collect();
        for device in &objects.devices {
            let outcome = built.outcomes.get(&device.meta.object_ref(Kind::Device)).unwrap();
            let refused = matches!(outcome, Outcome::Refused(_));
            prop_assert_eq!(mapped.contains(&device.meta.name.as_str()), !refused);
            prop_assert_eq!(refused, !outcome.findings().is_empty());
        }
        for tenant in built.tenants.values() {
            let all = tenant.shards.iter().flat_map(|shard| shard.devices.values());
            let codes: std::collections::BTreeSet<_> = all.map(|device| device.code.clone()).collect();
            let devices: usize = tenant.shards.iter().map(|s| s.devices.len()).sum();
            prop_assert_eq!(codes.len(), devices);
        }
    }

    #[test]
    fn the_previous_build_changes_only_what_is_shared(before in sketches(), sketches in sketches()) {
        let old = self::objects(&before);
        let old = build(&old);
        let objects = self::objects(&sketches);
        let whole = build(&objects);
        let upon = build_upon(&old, validate(&objects), &objects);
        prop_assert_eq!(&upon, &whole);
        for (tenant, built) in &upon.tenants {
            let was = |id| old.tenants.get(tenant)?.shards.iter().find_map(|shard| shard.devices.get(id));
            for (iot_id, device) in built.shards.iter().flat_map(|shard| &shard.devices) {
                let is_same = was(iot_id).is_some_and(|was| **was == **device);
                prop_assert_eq!(was(iot_id).is_some_and(|was| Arc::ptr_eq(was, device)), is_same);
            }
        }
    }

    #[test]
    fn a_newcomer_changes_nothing_for_those_before(
        sketches in sketches(),
        tenant in 0..4_u8,
        code in 0..6_u8,
        pin in proptest::option::of(0..4_u8),
    ) {
        let mut objects = objects(&sketches);
        let before = build(&objects);
        let newcomer = Sketch { tenant, code, format: 0, pin };
        let mut newcomer = self::objects(&[newcomer]).devices.remove(0);
        let meta = Arc::make_mut(&mut Arc::make_mut(&mut newcomer).meta);
        (meta.name, meta.created) = ("aaa".to_owned(), 1);
        objects.devices.push(newcomer);
        let after = build(&objects);
        for (tenant, built) in &before.tenants {
            for (iot_id, device) in built.shards.iter().flat_map(|s| &s.devices) {
                let still = after.tenants[tenant].shards.iter().find_map(|s| s.devices.get(iot_id));
                prop_assert_eq!(still, Some(device));
            }
        }
    }
}

fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for index in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(index, (seed >> 33) as usize % (index + 1));
    }
}
