//! Each CEL rule, with an object that breaks this rule only. A rule without such an object fails the test.

use std::collections::BTreeSet;

use flutecast_crds::definition::CrdKind;
use serde_json::Value;

use super::support::{broken_rules, broken_structure, good, patched, walk, without_indices};

/// An object that breaks a rule.
struct Case {
    kind: CrdKind,
    /// The changes to the good object.
    patch: &'static str,
    /// For an update: the changes to the good object that give the stored one.
    old: Option<&'static str>,
    /// The field path of the error.
    path: &'static str,
    /// The start of the message.
    message: &'static str,
}

const fn create(kind: CrdKind, path: &'static str, message: &'static str, patch: &'static str) -> Case {
    Case { kind, patch, old: None, path, message }
}

const fn update(
    kind: CrdKind,
    path: &'static str,
    message: &'static str,
    old: &'static str,
    patch: &'static str,
) -> Case {
    Case { kind, patch, old: Some(old), path, message }
}

const TOKEN: &str = "iotId.subjectToken must be the position";

#[rustfmt::skip]
const CASES: &[Case] = &[
    create(CrdKind::Tenant, "", "metadata.name is the tenant's name", "metadata: {name: acme.suzhou}"),
    create(CrdKind::Tenant, "", "metadata.name is the tenant's name",
        "metadata: {name: a234567890123456789012345678901234567890123456789012345678901234}"),
    create(CrdKind::Tenant, "spec.retention.maxAge", "maxAge must be 1s to 8760h",
        "spec: {retention: {maxAge: 999ms}}"),
    create(CrdKind::Tenant, "spec.retention.maxAge", "maxAge must be 1s to 8760h",
        "spec: {retention: {maxAge: 8760h1ms}}"),
    create(CrdKind::Tenant, "spec.retention.maxBytes", "maxBytes must be 1Mi to 1024Ti",
        "spec: {retention: {maxBytes: 1023Ki}}"),
    create(CrdKind::Tenant, "spec.retention.maxBytes", "maxBytes must be 1Mi to 1024Ti",
        "spec: {retention: {maxBytes: 1025Ti}}"),
    update(CrdKind::Tenant, "spec.retention.storage", "storage can't be changed", "{}",
        "spec: {retention: {storage: Memory}}"),
    create(CrdKind::Tenant, "spec.sources[].items", "items is only for iotId.pointer",
        "spec: {sources: [{name: a, subject: gw.*, channel: power, iotId: {subjectToken: 2}, items: \
            /readings}]}"),
    create(CrdKind::Tenant, "spec.sources[].iotId.subjectToken", TOKEN,
        "spec: {sources: [{name: a, subject: gw.*.power, channel: power, iotId: {subjectToken: 3}}]}"),
    create(CrdKind::Tenant, "spec.sources[].iotId.subjectToken", TOKEN,
        "spec: {sources: [{name: a, subject: gw.*.power, channel: power, iotId: {subjectToken: 4}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must not end in '>'",
        "spec: {sources: [{name: a, subject: gw.*.>, channel: power, iotId: {subjectToken: 2}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must start with a token of its own",
        "spec: {sources: [{name: a, subject: iot.acme.x.power, channel: power, iotId: {pointer: /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must start with a token of its own",
        "spec: {sources: [{name: a, subject: live.acme.>, channel: power, iotId: {pointer: /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must start with a token of its own",
        "spec: {sources: [{name: a, subject: $JS.API.INFO, channel: power, iotId: {pointer: /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must start with a token of its own",
        "spec: {sources: [{name: a, subject: _INBOX.x, channel: power, iotId: {pointer: /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].subject", "subject must start with a token of its own",
        "spec: {sources: [{name: a, subject: '*.out', channel: power, iotId: {pointer: /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].iotId", "exactly one of subjectToken",
        "spec: {sources: [{name: a, subject: gw.*, channel: power, iotId: {}}]}"),
    create(CrdKind::Tenant, "spec.sources[].iotId", "exactly one of subjectToken",
        "spec: {sources: [{name: a, subject: gw.*, channel: power, iotId: {subjectToken: 2, pointer: \
            /id}}]}"),
    create(CrdKind::Tenant, "spec.sources[].iotId.kind", "kind DeviceCode is only for pointer",
        "spec: {sources: [{name: a, subject: gw.*, channel: power, iotId: {subjectToken: 2, kind: \
            DeviceCode}}]}"),
    create(CrdKind::Tenant, "spec.enrollment.template", "template must be set with policy Automatic",
        "spec: {enrollment: {policy: Automatic}}"),
    create(CrdKind::Tenant, "spec.enrollment.codePattern", "codePattern is only for policy Automatic",
        "spec: {enrollment: {policy: Declared, codePattern: 'CORR-.*'}}"),
    create(CrdKind::Tenant, "spec.enrollment.template.channels[].staleAfter", "staleAfter must be 1s to 168h",
        "spec: {enrollment: {policy: Declared, template: {channels: [{name: a, format: f, staleAfter: \
            169h}]}}}"),

    update(CrdKind::Device, "spec.tenant", "tenant can't be changed", "{}", "spec: {tenant: other}"),
    update(CrdKind::Device, "spec.deviceCode", "deviceCode can't be changed", "{}",
        "spec: {deviceCode: CORR-02}"),
    update(CrdKind::Device, "spec.iotId", "iotId can't be set, changed or removed", "{}",
        "spec: {iotId: gw-17}"),
    update(CrdKind::Device, "spec.iotId", "iotId can't be set, changed or removed", "spec: {iotId: gw-17}",
        "spec: {iotId: gw-18}"),
    update(CrdKind::Device, "spec.iotId", "iotId can't be set, changed or removed", "spec: {iotId: gw-17}",
        "{}"),
    create(CrdKind::Device, "spec.channels[].staleAfter", "staleAfter must be 1s to 168h",
        "spec: {channels: [{name: telemetry, format: f, staleAfter: 999ms}]}"),
    create(CrdKind::Device, "spec.channels[].staleAfter", "staleAfter must be 1s to 168h",
        "spec: {channels: [{name: telemetry, format: f, staleAfter: 168h1ms}]}"),

    create(CrdKind::PushFormat, "spec.timestamp.maxAge", "maxAge must be 1s to 8760h",
        "spec: {timestamp: {pointer: /ts, unit: Seconds, maxAge: 0s}}"),
    create(CrdKind::PushFormat, "spec.timestamp.maxAge", "maxAge must be 1s to 8760h",
        "spec: {timestamp: {pointer: /ts, unit: Seconds, maxAge: 8761h}}"),
    create(CrdKind::PushFormat, "spec.timestamp.maxAhead", "maxAhead must be 0s to 24h",
        "spec: {timestamp: {pointer: /ts, unit: Seconds, maxAhead: 25h}}"),
    create(CrdKind::PushFormat, "spec.delivery.minInterval", "minInterval is only for policy Latest",
        "spec: {delivery: {policy: Every, minInterval: 1s}}"),
    create(CrdKind::PushFormat, "spec.delivery.minInterval", "minInterval must be 10ms to 1h",
        "spec: {delivery: {minInterval: 9ms}}"),
    create(CrdKind::PushFormat, "spec.delivery.minInterval", "minInterval must be 10ms to 1h",
        "spec: {delivery: {minInterval: 61m}}"),
    create(CrdKind::PushFormat, "spec.record", "record is only for policy Latest",
        "spec: {record: {merge: true}, delivery: {policy: Every}}"),
    create(CrdKind::PushFormat, "spec.record.merge", "merge must be true",
        "spec: {record: {merge: false}}"),
    create(CrdKind::PushFormat, "spec.record.expireFields", "expireFields must be 1s to 24h",
        "spec: {record: {merge: true, expireFields: 999ms}}"),
    create(CrdKind::PushFormat, "spec.record.expireFields", "expireFields must be 1s to 24h",
        "spec: {record: {merge: true, expireFields: 25h}}"),
    create(CrdKind::PushFormat, "spec.fields[].pointer", "exactly one of pointer",
        "spec: {fields: [{name: a}]}"),
    create(CrdKind::PushFormat, "spec.fields[].type", "type must be set with pointer",
        "spec: {fields: [{name: a, pointer: /a}]}"),
    create(CrdKind::PushFormat, "spec.fields[].type", "type is only for pointer",
        "spec: {fields: [{name: a, expression: '1.0', type: Number}]}"),
    create(CrdKind::PushFormat, "spec.fields[].scale", "scale is only for type Number",
        "spec: {fields: [{name: a, pointer: /a, type: Bool, scale: 2}]}"),
    create(CrdKind::PushFormat, "spec.fields[].scale", "scale is only for type Number",
        "spec: {fields: [{name: a, expression: '1.0', scale: 2}]}"),
    create(CrdKind::PushFormat, "spec.fields[].scale", "scale must not be 0",
        "spec: {fields: [{name: a, pointer: /a, type: Number, scale: 0}]}"),
    create(CrdKind::PushFormat, "spec.fields[].scale", "scale must not be 0",
        "spec: {fields: [{name: a, pointer: /a, type: Number, scale: 0.0}]}"),
    create(CrdKind::PushFormat, "spec.fields[].offset", "offset is only for type Number",
        "spec: {fields: [{name: a, pointer: /a, type: String, offset: 0.5}]}"),
    create(CrdKind::PushFormat, "spec.fields[].name", "name must not be true, false, null or in",
        "spec: {fields: [{name: in, pointer: /a, type: Bool}]}"),
    create(CrdKind::PushFormat, "spec.fields[].unit", "unit is only for type Number and for expression",
        "spec: {fields: [{name: a, pointer: /a, type: Bool, unit: m}]}"),
    create(CrdKind::PushFormat, "spec.fields[].deadband", "deadband must be greater than 0",
        "spec: {fields: [{name: a, pointer: /a, type: Number, deadband: 0}]}"),
    create(CrdKind::PushFormat, "spec.fields[].deadband", "deadband must be greater than 0",
        "spec: {fields: [{name: a, expression: '1.0', deadband: -0.5}]}"),
    create(CrdKind::PushFormat, "spec.fields[].deadband",
        "deadband is only for type Number and for expression",
        "spec: {fields: [{name: a, pointer: /a, type: String, deadband: 1}]}"),
    create(CrdKind::PushFormat, "spec.fields[].decimals",
        "decimals is only for type Number and for expression",
        "spec: {fields: [{name: a, pointer: /a, type: Bool, decimals: 1}]}"),
    create(CrdKind::PushFormat, "spec.fields[].values", "values is only for type Enum",
        "spec: {fields: [{name: a, pointer: /a, type: String, values: {x: z}}]}"),
    create(CrdKind::PushFormat, "spec.fields[].values", "values is only for type Enum",
        "spec: {fields: [{name: a, expression: '1.0', values: {x: z}}]}"),
    create(CrdKind::PushFormat, "spec.fields[].values", "values must be set with type Enum",
        "spec: {fields: [{name: a, pointer: /a, type: Enum}]}"),
    create(CrdKind::PushFormat, "spec.fields[].otherwise", "otherwise is only for type Enum",
        "spec: {fields: [{name: a, pointer: /a, type: String, otherwise: unknown}]}"),
    create(CrdKind::PushFormat, "spec.fields[].otherwise", "otherwise is only for type Enum",
        "spec: {fields: [{name: a, expression: '1.0', otherwise: unknown}]}"),
];

/// Valid objects at the bounds.
#[rustfmt::skip]
const GOOD: &[(CrdKind, &str)] = &[
    (CrdKind::Tenant, "{}"),
    (CrdKind::Tenant, "metadata: {name: a23456789012345678901234567890123456789012345678901234567890123}"),
    (CrdKind::Tenant, "spec: {retention: null}"),
    (CrdKind::Tenant, "spec: {retention: {maxAge: 1s, maxBytes: 1Mi, maxMessagesPerSubject: 1, replicas: \
        5}}"),
    (CrdKind::Tenant, "spec: {retention: {maxAge: 8760h, maxBytes: 1024Ti, maxMessagesPerSubject: 1000000, \
        storage: Memory}}"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: plant.gw1.*.power, channel: power, iotId: \
        {subjectToken: 3, kind: IotId}}]}"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: mes.>, channel: power, iotId: {pointer: /id, \
        kind: DeviceCode}, items: ''}]}"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: iotx.live, channel: power, iotId: {pointer: \
        ''}}]}"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: wall-1, devices: \
        [CORR-01]}]}, allowedOrigins: ['*']}}"),
    (CrdKind::Tenant, "spec: {enrollment: {policy: Declared}}"),
    (CrdKind::Tenant, "spec: {enrollment: {policy: Automatic, codePattern: 'CORR-[0-9]+', template: {labels: \
        {a/b: '', c: D_1}, channels: [{name: a, format: f}]}}}"),
    (CrdKind::Device, "spec: {iotId: '', channels: [{name: telemetry, format: a.b, staleAfter: 1s}, {name: \
        power, format: b, staleAfter: 168h}]}"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: '', unit: RFC3339, maxAge: 1s, maxAhead: 0s}, \
        delivery: {minInterval: 10ms}}"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: /ts, unit: Nanoseconds, maxAge: 8760h, maxAhead: \
        24h}, delivery: {minInterval: 1h}}"),
    (CrdKind::PushFormat, "spec: {delivery: {policy: Every}, when: 'values.a > 0.0'}"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: '', type: Number, scale: -0.1, offset: 0, \
        decimals: 0, deadband: 0.001, unit: '%', onChange: true}]}"),
    (CrdKind::PushFormat, "spec: {record: {merge: true}}"),
    (CrdKind::PushFormat, "spec: {record: {merge: true, expireFields: 1s}, delivery: {policy: Latest}}"),
    (CrdKind::PushFormat, "spec: {record: {merge: true, expireFields: 24h}}"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a~1b~0, type: Enum, values: {'0': 'off'}, \
        otherwise: alien}, \
        {name: b, expression: '1.0', decimals: 9, unit: x, deadband: 1}]}"),
];

/// Returns every rule of the three schemas as kind, field path and rule.
fn all_rules() -> BTreeSet<(CrdKind, String, String)> {
    let mut all = BTreeSet::new();
    for kind in CrdKind::ALL {
        walk(&kind.schema().unwrap(), "", &mut |path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let field = rule["fieldPath"].as_str().unwrap_or_default();
                all.insert((kind, format!("{path}{field}"), rule["rule"].as_str().unwrap().to_owned()));
            }
        });
    }
    all
}

#[test]
fn each_rule_refuses_an_object_that_breaks_only_this_rule() {
    let mut covered = BTreeSet::new();
    for Case { kind, patch, old, path, message } in CASES {
        let object = patched(good(*kind), patch);
        let old: Option<Value> = old.map(|old| patched(good(*kind), old));
        assert_eq!(broken_structure(*kind, &object), [""; 0], "{patch}");
        if let Some(old) = &old {
            assert!(
                broken_rules(*kind, old, None).is_empty(),
                "the stored object of {patch} is wrong itself"
            );
            assert!(
                broken_rules(*kind, &object, None).is_empty(),
                "{patch} is wrong even without a stored object"
            );
        }
        let errors = broken_rules(*kind, &object, old.as_ref());
        let [error] = errors.as_slice() else { panic!("{patch} breaks {errors:#?}, not one rule") };
        assert!(error.message.starts_with(message), "{patch}: {}", error.message);
        let at = without_indices(&error.field_path);
        assert_eq!(at, *path, "{patch}: field path");
        covered.insert((*kind, at, error.rule.clone()));
    }
    let missing: Vec<_> = all_rules().difference(&covered).cloned().collect();
    assert!(
        missing.is_empty(),
        "rules without an object that breaks them; add a case for each: {missing:#?}"
    );
}

#[test]
fn valid_objects_pass() {
    for (kind, patch) in GOOD {
        let object = patched(good(*kind), patch);
        assert_eq!(broken_structure(*kind, &object), [""; 0], "{patch}");
        let errors = broken_rules(*kind, &object, Some(&object));
        assert!(errors.is_empty(), "{patch}: {errors:#?}");
    }
}

#[test]
fn an_empty_iot_id_equals_a_missing_one() {
    let without = good(CrdKind::Device);
    let empty = patched(without.clone(), "spec: {iotId: ''}");
    for (object, old) in [(&without, &empty), (&empty, &without)] {
        assert!(broken_rules(CrdKind::Device, object, Some(old)).is_empty());
    }
}
