//! The outcome of each object: YAML in, printed lines out, without a broker and files.

use super::manifests::{device, format, tenant};
use super::{Folder, check};

/// Returns a tenant, a format and more.
fn plant(more: &[String]) -> String {
    [&[tenant("demo", ""), format("on-off")], more].concat().join("---\n")
}

#[test]
fn valid_objects_are_accepted() {
    let yaml = plant(&[device("d1", "demo", "CORR-01", "on-off")]);
    for object in ["Tenant/demo", "PushFormat/on-off", "Device/d1"] {
        check(&yaml, object, "Accepted");
    }
}

#[test]
fn duplicate_device_code_names_the_holder() {
    let yaml = plant(&[device("d2", "demo", "C-1", "on-off"), device("d1", "demo", "C-1", "on-off")]);
    // Both have the same age, so the first by name has the code, wherever it is.
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Refused DuplicateDeviceCode: spec.deviceCode: \"C-1\" is taken by Device/d1");
}

#[test]
fn the_same_code_in_another_tenant_is_no_duplicate() {
    let yaml = plant(&[
        tenant("other", ""),
        device("d1", "demo", "C-1", "on-off"),
        device("d2", "other", "C-1", "on-off"),
    ]);
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Accepted");
}

#[test]
fn a_taken_pin_is_refused() {
    let pinned = |name: &str, code: &str| {
        device(name, "demo", code, "on-off").replace("spec:\n", "spec:\n  iotId: abc\n")
    };
    let yaml = plant(&[pinned("d1", "C-1"), pinned("d2", "C-2")]);
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Refused IotIdTaken: spec.iotId: \"abc\" is taken by Device/d1");
}

#[test]
fn a_generated_id_is_refused_if_an_older_device_pinned_it() {
    let tenant = flutecast_contract::name::TenantName::new("demo").unwrap();
    let code = flutecast_contract::name::DeviceCode::new("C-2").unwrap();
    let taken = flutecast_contract::iot_id::generate(&tenant, &code);
    let pinned =
        device("d1", "demo", "C-1", "on-off").replace("spec:\n", &format!("spec:\n  iotId: {taken}\n"));
    let yaml = plant(&[pinned, device("d2", "demo", "C-2", "on-off")]);
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Refused IotIdTaken");
    check(&yaml, "Device/d2", "pin another one for this device");
}

#[test]
fn a_device_waits_for_a_missing_or_refused_tenant() {
    check(
        &plant(&[device("d1", "nobody", "C-1", "on-off")]),
        "Device/d1",
        "Refused TenantMissing: spec.tenant: there is no Tenant \"nobody\"",
    );
    let bad = "apiVersion: flutecast.io/v1alpha1\nkind: Tenant\nmetadata: {name: bad}\nspec: {retention: \
               {maxAge: 1ms}}\n";
    // The object doesn't pass the schema, so it doesn't exist for the device.
    check(
        &plant(&[bad.to_owned(), device("d1", "bad", "C-1", "on-off")]),
        "Device/d1",
        "Refused TenantMissing",
    );
}

#[test]
fn the_name_of_a_tenant_counts_across_namespaces() {
    let other =
        tenant("demo", "").replace("metadata: {name: demo}", "metadata: {name: demo, namespace: zzz}");
    let device = device("d1", "demo", "C-1", "on-off")
        .replace("metadata: {name: d1}", "metadata: {name: d1, namespace: zzz}");
    let yaml = plant(&[other, device]);
    check(&yaml, "Tenant/demo", "Accepted");
    check(
        &yaml,
        "Tenant/zzz/demo",
        "Refused TenantNameTaken: metadata.name: \"demo\" is taken by Tenant/demo in namespace default",
    );
    check(&yaml, "Device/zzz/d1", "Refused TenantRefused");
}

#[test]
fn a_device_in_another_namespace_is_refused() {
    let device = device("d1", "demo", "C-1", "on-off")
        .replace("metadata: {name: d1}", "metadata: {name: d1, namespace: zzz}");
    check(&plant(&[device]), "Device/zzz/d1", "Refused TenantMissing");
}

#[test]
fn a_missing_format_removes_only_its_channel() {
    let two = device("d1", "demo", "C-1", "on-off")
        .replace("channels:\n", "channels:\n  - {name: telemetry, format: nope}\n");
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &plant(&[two]))]);
    assert!(
        folder
            .outcome("Device/d1")
            .contains("Degraded FormatMissing: spec.channels[0].format: there is no PushFormat \"nope\""),
        "{}",
        folder.outcomes()
    );
    let built = folder.built();
    let channels: Vec<&str> =
        folder.device(&built, "C-1").unwrap().channels.keys().map(|name| name.as_str()).collect();
    assert_eq!(channels, ["power"]);
}

#[test]
fn a_device_without_any_channel_is_refused_but_keeps_its_code() {
    let yaml = plant(&[device("d1", "demo", "C-1", "nope"), device("d2", "demo", "C-1", "on-off")]);
    check(&yaml, "Device/d1", "Refused FormatMissing");
    check(&yaml, "Device/d2", "Refused DuplicateDeviceCode");
}

#[test]
fn devices_beyond_the_quota_are_refused() {
    let yaml = format!(
        "{}---\n{}---\n{}---\n{}",
        tenant("demo", "quota: {maxDevices: 1}"),
        format("on-off"),
        device("d1", "demo", "C-1", "on-off"),
        device("d2", "demo", "C-2", "on-off")
    );
    check(&yaml, "Device/d1", "Accepted");
    check(&yaml, "Device/d2", "Refused QuotaExceeded: Tenant/demo allows 1 devices");
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: walls}\nstringData:\n  wall: \
                      a-token-of-many-letters\n  short: too-short\n  spaced: 'a token with spaces in it'\n";

#[test]
fn invalid_secrets_and_tokens_are_reported() {
    let access = "access: {tokens: {secretName: walls, restricted: [{name: wall, devices: [C-1]}, {name: \
                  gone, devices: [C-1]}]}}";
    let without = tenant("demo", access);
    check(
        &without,
        "Tenant/demo",
        "Degraded SecretMissing: spec.access.tokens.secretName: there is no Secret \"walls\"",
    );
    let with = format!("{without}---\n{SECRET}");
    check(
        &with,
        "Tenant/demo",
        "Degraded SecretInvalid: spec.access.tokens.restricted[1].name: Secret/walls has no key \"gone\"",
    );
    check(
        &with,
        "Secret/walls",
        "TokenTooShort: data.short: the token has 9 characters; it needs 16 at least",
    );
    check(&with, "Secret/walls", "SecretInvalid: data.spaced");
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &with)]);
    let built = folder.built();
    let tokens = &built.access.tenants.values().next().unwrap().tokens;
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    // printf a-token-of-many-letters | sha256sum
    assert_eq!(tokens["wall"].sha256, "4886ce4d05c2de84d1e10cbce130d7653e1610780de393488b396a5ac12565be");
    assert_eq!(tokens["wall"].devices.as_ref().unwrap().len(), 1);
    let said = format!("{}{built:?}", folder.outcomes());
    for token in ["a-token-of-many-letters", "too-short", "a token with spaces"] {
        assert!(!said.contains(token), "{token} shows");
    }
}

#[test]
fn a_large_tenant_shuts_no_other_out_of_the_access_document() {
    let secret = |name: &str, tokens: usize| {
        let tokens: Vec<String> =
            (0..tokens).map(|n| format!("  k{n}: a-token-of-many-letters-{n}\n")).collect();
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n{}", tokens.concat())
    };
    let with = |name: &str| tenant(name, &format!("access: {{tokens: {{secretName: {name}}}}}"));
    let mut folder = Folder::default();
    let opens = |folder: &Folder| -> Vec<(String, usize)> {
        let tenants = folder.built().access.tenants;
        tenants.into_iter().map(|(name, access)| (name.to_string(), access.tokens.len())).collect()
    };
    let greedy = format!("{}---\n{}", with("greedy"), secret("greedy", 12_000));
    let modest = format!("{}---\n{}", with("modest"), secret("modest", 3));
    folder.load(&[("a.yaml", &greedy), ("b.yaml", &modest)]);
    assert_eq!(opens(&folder), [("greedy".to_owned(), 0), ("modest".to_owned(), 3)]);
    let said = folder.outcome("Tenant/greedy");
    assert!(
        said.contains("Degraded SecretInvalid: spec.access: its tokens") && said.contains("may take 262144"),
        "{said}"
    );
    assert!(folder.outcome("Tenant/modest").contains("Accepted"));

    // Together they may be too many as well: then the youngest is left out.
    let names = ["a", "b", "c", "d", "e"];
    let mut files = vec![("0.yaml".to_owned(), modest)];
    for name in names {
        files.push((format!("{name}.yaml"), format!("{}---\n{}", with(name), secret(name, 1_500))));
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        folder.load(&files);
    }
    let full: Vec<String> =
        opens(&folder).into_iter().filter(|(_, tokens)| *tokens == 1_500).map(|(name, _)| name).collect();
    assert!(
        full.starts_with(&["a".to_owned(), "b".to_owned(), "c".to_owned()]) && full.len() < names.len(),
        "{full:?}"
    );
    assert!(folder.outcome("Tenant/e").contains("older Tenants leave"), "{}", folder.outcome("Tenant/e"));
    let text = folder.built().access.to_yaml().unwrap();
    assert!(text.len() < 1 << 20 && text.contains("modest"), "{}", text.len());
}

#[test]
fn conflicting_sources_are_refused() {
    let gateway = |name: &str, subject: &str| {
        format!("{{name: {name}, subject: {subject}, channel: power, iotId: {{subjectToken: 3}}}}")
    };
    let sources = |list: &[String]| format!("sources: [{}]", list.join(", "));
    let demo = tenant(
        "demo",
        &sources(&[
            gateway("gw1", "plant.gw1.*.power"),
            gateway("gw2", "plant.*.*.power"),
            gateway("own", "flutecast.demo.*.power"),
        ]),
    );
    let other = tenant("other", &sources(&[gateway("gw", "plant.gw1.*.*")]));
    let yaml = format!("{demo}---\n{other}");
    check(
        &yaml,
        "Tenant/demo",
        "Degraded SourceConflict: spec.sources[1].subject: \"plant.*.*.power\" overlaps \
         \"plant.gw1.*.power\", which is claimed by source gw1 of Tenant/demo",
    );
    check(
        &yaml,
        "Tenant/demo",
        "spec.sources[2].subject: \"flutecast.demo.*.power\" overlaps \"flutecast.>\", which is reserved",
    );
    check(&yaml, "Tenant/other", "Degraded SourceConflict: spec.sources[0].subject");
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &yaml)]);
    let built = folder.built();
    let streams = built.tenants.values().map(|tenant| tenant.streams.sources.len()).collect::<Vec<_>>();
    assert_eq!(streams, [1, 0]);
}

#[test]
fn a_source_whose_token_is_no_wildcard_is_refused() {
    let sources =
        "sources: [{name: gw, subject: plant.gw1.x.power, channel: power, iotId: {subjectToken: 3}}]";
    let line = "spec.sources[0]";
    check(&tenant("demo", sources), "Tenant/demo", line);
}

#[test]
fn a_format_that_does_not_compile_is_refused() {
    let bad = format("on-off").replace("fields:\n", "when: \"values.running >\"\n  fields:\n");
    let yaml = format!("{}---\n{bad}---\n{}", tenant("demo", ""), device("d1", "demo", "C-1", "on-off"));
    check(&yaml, "PushFormat/on-off", "Refused FormatInvalid: spec.when");
    check(
        &yaml,
        "Device/d1",
        "Refused FormatInvalid: spec.channels[0].format: PushFormat/on-off does not compile",
    );
}

/// Returns a tenant with a retention, a format of records with these fields beside `merge`, and a device.
fn with_record(retention: &str, record: &str) -> String {
    let format =
        format("changes").replace("delivery: {policy: Every}", &format!("record: {{merge: true{record}}}"));
    [tenant("demo", &format!("retention: {{{retention}}}")), format, device("d1", "demo", "C-1", "changes")]
        .join("---\n")
}

#[test]
fn a_record_that_outlives_the_retention_is_named_and_served() {
    let yaml = with_record("maxAge: 1m, maxMessagesPerSubject: 511", ", expireFields: 10m");
    check(
        &yaml,
        "Device/d1",
        "Degraded RecordOutlivesRetention: spec.channels[0].format: the record of PushFormat/changes keeps \
         fields for 10m (record.expireFields), but Tenant/demo keeps messages for 1m only",
    );
    check(&yaml, "Device/d1", "raise retention.maxMessagesPerSubject to 512");
    for (retention, record) in [
        ("maxAge: 10m, maxMessagesPerSubject: 512", ", expireFields: 10m"),
        // Without expireFields there is nothing that the retention could fall short of.
        ("maxAge: 1s", ""),
    ] {
        check(&with_record(retention, record), "Device/d1", "Accepted");
    }
}

#[test]
fn pods_forget_the_fields_of_a_record_no_later_than_the_stream() {
    for (retention, record, expected) in [
        ("maxAge: 1h", ", expireFields: 10m", 600_000),
        ("maxAge: 1m", ", expireFields: 10m", 60_000),
        ("maxAge: 1m", "", 60_000),
    ] {
        let mut folder = Folder::default();
        folder.load(&[("a.yaml", &with_record(retention, record))]);
        let built = folder.built();
        let shards = built.tenants.values().flat_map(|tenant| &tenant.shards);
        let mut formats = shards.flat_map(|shard| shard.formats.values());
        let record = formats.next().and_then(|format| format.record.clone()).unwrap();
        assert_eq!(record.expire_fields_ms, Some(expected), "{retention} {expected}");
    }
}
