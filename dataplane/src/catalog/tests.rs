use super::*;
use flutecast_contract::document::{API_VERSION, ShardDocument};

/// Returns a shard with devices (code and format), the formats `f` and `g`, and `bad` if a device uses it.
fn shard(tenant: &str, shard: u32, shards: u32, revision: &str, devices: &[(&str, &str)]) -> ShardDocument {
    let mut yaml = format!(
        "apiVersion: {API_VERSION}
tenant: {tenant}
shard: {shard}
shards: {shards}
revision: {revision}
formats:
  f: {{codec: JSON, fields: [{{name: v, pointer: /v, type: Number}}]}}
  g: {{codec: JSON, fields: [{{name: w, pointer: /w, type: Bool}}]}}
"
    );
    if devices.iter().any(|(_, format)| *format == "bad") {
        yaml.push_str("  bad: {codec: JSON, fields: [{name: v, pointer: no-slash, type: Number}]}\n");
    }
    if shard == 0 {
        yaml.push_str(&format!("settings: {{stream: IOT_{tenant}}}\n"));
    }
    if !devices.is_empty() {
        yaml.push_str("devices:\n");
    }
    for (code, format) in devices {
        let id = code.to_lowercase();
        yaml.push_str(&format!(
            "  {id}: {{code: {code}, name: {id}, \
             channels: {{a: {{format: {format}}}, b: {{format: f, staleAfterMs: 1500}}}}}}\n"
        ));
    }
    serde_yaml::from_str(&yaml).unwrap()
}

fn tenant<'a>(catalog: &'a Catalog, name: &str) -> &'a Arc<TenantCatalog> {
    catalog.tenants.get(name).unwrap_or_else(|| panic!("no tenant {name}"))
}

fn device<'a>(catalog: &'a Catalog, name: &str, code: &str) -> &'a Arc<Device> {
    tenant(catalog, name).by_code.get(code).unwrap_or_else(|| panic!("no device {code}"))
}

#[test]
fn shards_become_one_tenant() {
    let documents = vec![shard("acme", 1, 2, "r1", &[("B", "f")]), shard("acme", 0, 2, "r0", &[("A", "g")])];
    let (catalog, problems) = Catalog::build(documents, None);
    assert_eq!(problems, []);
    let acme = tenant(&catalog, "acme");
    assert_eq!((acme.devices.len(), acme.settings.stream.as_str()), (2, "IOT_acme"));
    assert_eq!(acme.revisions, ["r0", "r1"]);
    let a = device(&catalog, "acme", "A");
    assert!(Arc::ptr_eq(a, &acme.devices["a"]));
    assert_eq!(a.channels["b"].stale_after, Some(Duration::from_millis(1500)));
    // Two shards that use the same format share its program.
    assert!(Arc::ptr_eq(&a.channels["b"].program, &device(&catalog, "acme", "B").channels["b"].program));
    assert!(!Arc::ptr_eq(&a.channels["a"].program, &a.channels["b"].program));
}

#[test]
fn unchanged_parts_are_shared_with_the_previous_catalog() {
    let before = Catalog::build(
        vec![shard("acme", 0, 1, "r1", &[("A", "f"), ("B", "f")]), shard("other", 0, 1, "r1", &[("A", "f")])],
        None,
    )
    .0;
    let after = Catalog::build(
        vec![shard("acme", 0, 1, "r2", &[("A", "f"), ("B", "g")]), shard("other", 0, 1, "r1", &[("A", "f")])],
        Some(&before),
    )
    .0;
    assert!(Arc::ptr_eq(tenant(&before, "other"), tenant(&after, "other")));
    assert!(Arc::ptr_eq(device(&before, "acme", "A"), device(&after, "acme", "A")));
    let (old, new) = (device(&before, "acme", "B"), device(&after, "acme", "B"));
    assert!(!Arc::ptr_eq(old, new));
    assert!(Arc::ptr_eq(&old.channels["b"].program, &new.channels["b"].program));
    assert!(!before.same(&after));
    let again = Catalog::build(
        vec![shard("acme", 0, 1, "r2", &[("A", "f"), ("B", "g")]), shard("other", 0, 1, "r1", &[("A", "f")])],
        Some(&after),
    );
    assert!(again.0.same(&after));
}

#[test]
fn same_device_code_in_two_tenants_is_two_devices() {
    let documents = vec![shard("acme", 0, 1, "r", &[("A", "f")]), shard("other", 0, 1, "r", &[("A", "f")])];
    let (catalog, problems) = Catalog::build(documents, None);
    assert_eq!(problems, []);
    assert!(!Arc::ptr_eq(device(&catalog, "acme", "A"), device(&catalog, "other", "A")));
}

#[test]
fn format_that_does_not_compile_removes_its_channels_only() {
    let (catalog, problems) =
        Catalog::build(vec![shard("acme", 0, 1, "r", &[("A", "bad"), ("B", "f")])], None);
    assert!(problems.iter().all(|problem| problem.kind == ProblemKind::BadFormat), "{problems:?}");
    assert_eq!(problems[0].place, "tenant acme, format bad");
    assert!(problems[0].message.contains("no-slash"), "{}", problems[0]);
    let channels =
        |code| device(&catalog, "acme", code).channels.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((channels("A"), channels("B")), (vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn missing_format_removes_its_channels_only() {
    let (catalog, problems) = Catalog::build(vec![shard("acme", 0, 1, "r", &[("A", "missing")])], None);
    let bad = problems.iter().find(|problem| problem.place.contains("device A, channel a")).unwrap();
    assert!(bad.message.contains("format missing"), "{bad}");
    assert_eq!(device(&catalog, "acme", "A").channels.len(), 1);
}

#[test]
fn incomplete_shards_keep_the_last_good_state() {
    let good = vec![shard("acme", 0, 2, "r0", &[("A", "f")]), shard("acme", 1, 2, "r1", &[("B", "f")])];
    let (before, _) = Catalog::build(good, None);
    let no_settings = ShardDocument { settings: None, ..shard("acme", 0, 1, "r", &[("C", "f")]) };
    let other_version = ShardDocument {
        api_version: "mapping.flutecast.io/v9".to_owned(),
        ..shard("acme", 0, 1, "r", &[("C", "f")])
    };
    for (what, documents) in [
        ("a missing shard", vec![shard("acme", 0, 2, "x", &[("C", "f")])]),
        ("no shard 0", vec![shard("acme", 1, 2, "x", &[("C", "f")])]),
        ("different counts", vec![shard("acme", 0, 3, "x", &[]), shard("acme", 1, 2, "y", &[])]),
        ("one shard twice", vec![shard("acme", 0, 2, "x", &[]), shard("acme", 0, 2, "y", &[])]),
        ("no settings", vec![no_settings]),
        ("an unknown version", vec![other_version]),
    ] {
        let (after, problems) = Catalog::build(documents.clone(), Some(&before));
        assert!(Arc::ptr_eq(tenant(&before, "acme"), tenant(&after, "acme")), "{what}");
        assert_eq!(
            (problems.len(), problems[0].kind),
            (1, ProblemKind::IncompleteShards),
            "{what}: {problems:?}"
        );
        assert!(problems[0].place.contains("tenant acme"), "{what}");
        // Without a last good state there is nothing to serve.
        assert!(Catalog::build(documents, None).0.tenants.is_empty(), "{what}");
    }
}

#[test]
fn smaller_set_of_shards_is_used_before_the_rest_is_deleted() {
    let documents =
        vec![shard("acme", 0, 1, "new", &[("A", "f")]), shard("acme", 1, 2, "old", &[("B", "f")])];
    let (catalog, problems) = Catalog::build(documents, None);
    assert_eq!(problems, []);
    assert_eq!(tenant(&catalog, "acme").revisions, ["new"]);
}

#[test]
fn tenant_without_documents_is_removed_and_an_unreadable_one_kept() {
    let (before, _) = Catalog::build(vec![shard("acme", 0, 1, "r", &[("A", "f")])], None);
    assert!(Catalog::build(vec![], Some(&before)).0.tenants.is_empty());
    let unreadable =
        || Documents { unreadable: [TenantName::new("acme").unwrap()].into(), ..Documents::default() };
    let (after, problems) = Catalog::build_from(unreadable(), Some(&before));
    assert!(Arc::ptr_eq(tenant(&before, "acme"), tenant(&after, "acme")));
    assert_eq!(problems, []);
    assert!(Catalog::build_from(unreadable(), None).0.tenants.is_empty());
}

#[test]
fn first_of_two_devices_with_the_same_code_is_served() {
    let mut second = shard("acme", 1, 2, "r1", &[("B", "f")]);
    for device in second.devices.values_mut() {
        Arc::make_mut(device).code = DeviceCode::new("A").unwrap();
    }
    let (catalog, problems) = Catalog::build(vec![shard("acme", 0, 2, "r0", &[("A", "g")]), second], None);
    assert_eq!((problems.len(), problems[0].kind), (1, ProblemKind::DuplicateDevice));
    assert_eq!(device(&catalog, "acme", "A").iot_id.as_str(), "a");
    assert_eq!(tenant(&catalog, "acme").devices.len(), 1);
}
