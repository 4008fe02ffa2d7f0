//! Objects that were not checked by a schema: the build step doesn't rely on earlier checks.

use std::sync::Arc;

use super::build;
use crate::controller::build::Built;
use crate::object::{Kind, ObjectRef};
use crate::object::{Meta, Object, Objects};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<S: DeserializeOwned>(name: &str, spec: Value) -> Arc<Object<S>> {
    let meta = Meta {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: None,
        created: 0,
        labels: Arc::default(),
    };
    Arc::new(Object { meta: meta.into(), spec: serde_json::from_value(spec).unwrap() })
}

/// Returns objects with these specs.
fn objects(tenant: Value, device: Value) -> Objects {
    Objects {
        unreadable: Default::default(),
        tenants: vec![object("demo", tenant)],
        devices: vec![object("d1", device)],
        formats: vec![object("f", json!({"fields": [{"name": "n", "pointer": "/n", "type": "Number"}]}))],
        secrets: Vec::new(),
    }
}

fn built(objects: &Objects) -> Built {
    build(objects)
}

#[track_caller]
fn check(objects: &Objects, kind: Kind, name: &str, word: &str, expected: &str) {
    let built = built(objects);
    let outcome = built.outcomes.get(&ObjectRef::new(kind, "default", name)).unwrap();
    let findings: Vec<String> = outcome.findings().iter().map(ToString::to_string).collect();
    assert!(
        outcome.word() == word && findings.iter().any(|finding| finding.contains(expected)),
        "{} {findings:#?}",
        outcome.word()
    );
}

fn device() -> Value {
    json!({"tenant": "demo", "deviceCode": "C-1", "channels": [{"name": "power", "format": "f"}]})
}

fn with_source(source: Value) -> Objects {
    objects(json!({"sources": [source]}), device())
}

#[test]
fn invalid_names_are_refused() {
    let with = |field: &str, value: Value| {
        let mut device = device();
        device[field] = value;
        objects(json!({}), device)
    };
    check(
        &with("deviceCode", json!("C 1")),
        Kind::Device,
        "d1",
        "Refused",
        "InvalidName: spec.deviceCode: device code \"C 1\" is not valid",
    );
    check(&with("iotId", json!("a.b")), Kind::Device, "d1", "Refused", "InvalidName: spec.iotId");
    let channels =
        json!([{"name": "Power", "format": "f"}, {"name": "b", "format": "f"}, {"name": "b", "format": "f"}]);
    check(
        &with("channels", channels.clone()),
        Kind::Device,
        "d1",
        "Degraded",
        "InvalidName: spec.channels[0].name",
    );
    check(
        &with("channels", channels),
        Kind::Device,
        "d1",
        "Degraded",
        "InvalidObject: spec.channels[2].name: there is a channel \"b\" before it",
    );
    check(
        &with("channels", json!([])),
        Kind::Device,
        "d1",
        "Refused",
        "InvalidObject: spec.channels: no channel",
    );
    let mut objects = objects(json!({}), device());
    objects.tenants = vec![object("de.mo", json!({}))];
    check(&objects, Kind::Tenant, "de.mo", "Refused", "InvalidName: metadata.name");
}

#[test]
fn invalid_sources_are_refused() {
    for (source, expected) in [
        (
            json!({"name": "gw", "subject": "a.*.b", "channel": "power", "iotId": {"subjectToken": 3}}),
            "sources[0].iotId.subjectToken: token 3 of \"a.*.b\" is \"b\"; it needs to be '*'",
        ),
        (
            json!({"name": "gw", "subject": "a.*", "channel": "power", "iotId": {"subjectToken": 0}}),
            "token 0 of \"a.*\" is nothing",
        ),
        (
            json!({"name": "gw", "subject": "a.*.>", "channel": "power", "iotId": {"subjectToken": 2}}),
            "ends in '>'",
        ),
        (
            json!({"name": "gw", "subject": "a..b", "channel": "power", "iotId": {"pointer": "/id"}}),
            "has an empty token",
        ),
        (
            json!({"name": "gw", "subject": "a.b", "channel": "power", "iotId": {}}),
            "needs either subjectToken",
        ),
        (
            json!({"name": "gw", "subject": "a.b", "channel": "power", "iotId": {"pointer": "id"}}),
            "\"id\" is not a JSON pointer",
        ),
        (
            json!({"name": "gw", "subject": "a.b", "channel": "power", "iotId": {"pointer": "/id"},
                "items": "/a~2"}),
            "is not a JSON pointer",
        ),
        (
            json!({"name": "gw", "subject": "a.*", "channel": "power", "iotId": {"subjectToken": 2},
                "items": "/a"}),
            "goes with iotId.pointer only",
        ),
        (
            json!({"name": "gw", "subject": "a.*", "channel": "power",
                "iotId": {"subjectToken": 2, "kind": "DeviceCode"}}),
            "DeviceCode goes with iotId.pointer only",
        ),
    ] {
        check(&with_source(source), Kind::Tenant, "demo", "Degraded", expected);
    }
    let twice = json!({"sources": [
        {"name": "gw", "subject": "a.b", "channel": "power", "iotId": {"pointer": "/id"}},
        {"name": "gw", "subject": "c.d", "channel": "power", "iotId": {"pointer": "/id"}},
    ]});
    check(
        &objects(twice, device()),
        Kind::Tenant,
        "demo",
        "Degraded",
        "SourceInvalid: spec.sources[1].name: the name \"gw\" is taken",
    );
}

#[test]
fn each_wildcard_finds_its_place() {
    let subject = "plant.*.line.*.power";
    let source = json!({"name": "gw", "subject": subject, "channel": "power", "iotId": {"subjectToken": 4}});
    let built = built(&with_source(source));
    let source = &built.tenants.values().next().unwrap().streams.sources[0];
    assert!(
        format!("{:?}", source.reading).contains("iot.demo.{{wildcard(2)}}.power"),
        "{:?}",
        source.reading
    );
}

#[test]
fn a_retention_without_an_end_is_refused() {
    check(
        &objects(json!({"retention": {"maxAge": "0s"}}), device()),
        Kind::Tenant,
        "demo",
        "Refused",
        "InvalidObject: spec.retention.maxAge: 0s is too short",
    );
}

#[test]
fn a_device_that_is_too_large_leaves_the_others_alone() {
    let mut objects = objects(json!({}), device());
    let mut large = (*objects.devices[0]).clone();
    let meta = Arc::make_mut(&mut large.meta);
    meta.name = "large".to_owned();
    Arc::make_mut(&mut meta.labels).insert("note".to_owned(), "x".repeat(600 * 1024));
    large.spec.device_code = "L-1".to_owned();
    objects.devices.push(Arc::new(large));
    check(
        &objects,
        Kind::Device,
        "large",
        "Refused",
        "DeviceTooLarge: spec.channels: the device and the formats that it uses take",
    );
    let built = built(&objects);
    let devices: usize =
        built.tenants.values().flat_map(|tenant| &tenant.shards).map(|shard| shard.devices.len()).sum();
    assert_eq!(devices, 1);
}

#[test]
fn access_is_no_more_than_the_tenant_grants() {
    // Without an access section there is no access; with one, only what it grants.
    let none = built(&objects(json!({}), device()));
    assert!(none.access.tenants.is_empty());
    let some = built(&objects(json!({"access": {"allowedOrigins": ["https://a.example"]}}), device()));
    let access = some.access.tenants.values().next().unwrap();
    assert!(!access.anonymous && access.tokens.is_empty() && access.allowed_origins == ["https://a.example"]);
}
