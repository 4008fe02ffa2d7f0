//! Objects that the patterns, bounds, enums and list keys of the schema refuse.

use flutecast_crds::definition::CrdKind;

use super::support::{broken_structure, good, patched};

/// The kind, the changes to the good object, and the error as path and keyword.
#[rustfmt::skip]
const CASES: &[(CrdKind, &str, &str)] = &[
    (CrdKind::Tenant, "spec: null", ": required spec"),
    (CrdKind::Tenant, "spec: {displayname: x}", "spec.displayname: unknown"),
    (CrdKind::Tenant, "spec: {displayName: ''}", "spec.displayName: minLength"),
    (CrdKind::Tenant, "spec: {retention: {maxAge: 1d}}", "spec.retention.maxAge: pattern"),
    (CrdKind::Tenant, "spec: {retention: {maxAge: 3600}}", "spec.retention.maxAge: type"),
    (CrdKind::Tenant, "spec: {retention: {maxAge: 1.5h}}", "spec.retention.maxAge: pattern"),
    (CrdKind::Tenant, "spec: {retention: {maxBytes: 512MB}}", "spec.retention.maxBytes: pattern"),
    (CrdKind::Tenant, "spec: {retention: {maxBytes: 0Mi}}", "spec.retention.maxBytes: pattern"),
    (CrdKind::Tenant, "spec: {retention: {maxMessagesPerSubject: 0}}",
        "spec.retention.maxMessagesPerSubject: minimum"),
    (CrdKind::Tenant, "spec: {retention: {maxMessagesPerSubject: 1000001}}",
        "spec.retention.maxMessagesPerSubject: maximum"),
    (CrdKind::Tenant, "spec: {retention: {storage: file}}", "spec.retention.storage: enum"),
    (CrdKind::Tenant, "spec: {retention: {replicas: 0}}", "spec.retention.replicas: minimum"),
    (CrdKind::Tenant, "spec: {retention: {replicas: 6}}", "spec.retention.replicas: maximum"),
    (CrdKind::Tenant, "spec: {retention: {onDelete: Purge}}", "spec.retention.onDelete: enum"),
    (CrdKind::Tenant, "spec: {sources: [{name: A, subject: a, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].name: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a..b, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a.b*, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a.>.b, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: '>', channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: 'a b', channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a., channel: c, iotId: {pointer: /a}}]}",
        "spec.sources[].subject: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: C, iotId: {pointer: /a}}]}",
        "spec.sources[].channel: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: a}}]}",
        "spec.sources[].iotId.pointer: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a~2}}]}",
        "spec.sources[].iotId.pointer: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: 0}}]}",
        "spec.sources[].iotId.subjectToken: minimum"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: 65}}]}",
        "spec.sources[].iotId.subjectToken: maximum"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: '3'}}]}",
        "spec.sources[].iotId.subjectToken: type"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a, kind: \
        Code}}]}", "spec.sources[].iotId.kind: enum"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a}, items: r}]}",
        "spec.sources[].items: pattern"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c}]}",
        "spec.sources[]: required iotId"),
    (CrdKind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a}}, {name: a, \
        subject: b, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources: duplicate"),
    (CrdKind::Tenant, "spec: {access: {anonymous: 'yes'}}", "spec.access.anonymous: type"),
    (CrdKind::Tenant, "spec: {access: {allowedOrigins: [screens.acme.example]}}",
        "spec.access.allowedOrigins[]: pattern"),
    (CrdKind::Tenant, "spec: {access: {allowedOrigins: ['https://screens.acme.example/']}}",
        "spec.access.allowedOrigins[]: pattern"),
    (CrdKind::Tenant, "spec: {access: {allowedOrigins: ['https://*.acme.example']}}",
        "spec.access.allowedOrigins[]: pattern"),
    (CrdKind::Tenant, "spec: {access: {allowedOrigins: ['*', '*']}}",
        "spec.access.allowedOrigins: duplicate"),
    (CrdKind::Tenant, "spec: {access: {tokens: {}}}", "spec.access.tokens: required secretName"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: My_Secret}}}",
        "spec.access.tokens.secretName: pattern"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: 'a b', devices: [C]}]}}}",
        "spec.access.tokens.restricted[].name: pattern"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: []}]}}}",
        "spec.access.tokens.restricted[].devices: minItems"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: ['*']}]}}}",
        "spec.access.tokens.restricted[].devices[]: pattern"),
    (CrdKind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: [C]}, {name: \
        a, devices: [D]}]}}}",
        "spec.access.tokens.restricted: duplicate"),
    (CrdKind::Tenant, "spec: {enrollment: {policy: Auto}}", "spec.enrollment.policy: enum"),
    (CrdKind::Tenant, "spec: {enrollment: {codePattern: ''}}", "spec.enrollment.codePattern: minLength"),
    (CrdKind::Tenant, "spec: {enrollment: {template: {}}}", "spec.enrollment.template: required channels"),
    (CrdKind::Tenant, "spec: {enrollment: {template: {channels: []}}}",
        "spec.enrollment.template.channels: minItems"),
    (CrdKind::Tenant, "spec: {enrollment: {template: {channels: [{name: a, format: f}, {name: a, format: \
        g}]}}}",
        "spec.enrollment.template.channels: duplicate"),
    (CrdKind::Tenant, "spec: {enrollment: {template: {labels: {line: -l}, channels: [{name: a, format: \
        f}]}}}",
        "spec.enrollment.template.labels.line: pattern"),
    (CrdKind::Tenant, "spec: {quota: {maxDevices: 0}}", "spec.quota.maxDevices: minimum"),
    (CrdKind::Tenant, "spec: {quota: {maxClients: 1000001}}", "spec.quota.maxClients: maximum"),

    (CrdKind::Device, "spec: {tenant: null}", "spec: required tenant"),
    (CrdKind::Device, "spec: {deviceCode: null}", "spec: required deviceCode"),
    (CrdKind::Device, "spec: {channels: null}", "spec: required channels"),
    (CrdKind::Device, "spec: {tenant: Acme}", "spec.tenant: pattern"),
    (CrdKind::Device, "spec: {deviceCode: 'CORR 01'}", "spec.deviceCode: pattern"),
    (CrdKind::Device, "spec: {deviceCode: '-1'}", "spec.deviceCode: pattern"),
    (CrdKind::Device, "spec: {deviceCode: 1}", "spec.deviceCode: type"),
    (CrdKind::Device, "spec: {iotId: a.b}", "spec.iotId: pattern"),
    (CrdKind::Device, "spec: {iotId: a2345678901234567890123456789012345678901234567890123456789012345}",
        "spec.iotId: maxLength"),
    (CrdKind::Device, "spec: {channels: []}", "spec.channels: minItems"),
    (CrdKind::Device, "spec: {channels: [{name: telemetry}]}", "spec.channels[]: required format"),
    (CrdKind::Device, "spec: {channels: [{name: Telemetry, format: f}]}", "spec.channels[].name: pattern"),
    (CrdKind::Device, "spec: {channels: [{name: a23456789012345678901234567890123, format: f}]}",
        "spec.channels[].name: maxLength"),
    (CrdKind::Device, "spec: {channels: [{name: a, format: F}]}", "spec.channels[].format: pattern"),
    (CrdKind::Device, "spec: {channels: [{name: a, format: f, staleAfter: 10}]}",
        "spec.channels[].staleAfter: type"),
    (CrdKind::Device, "spec: {channels: [{name: a, format: f, staleAfter: ten}]}",
        "spec.channels[].staleAfter: pattern"),
    (CrdKind::Device, "spec: {channels: [{name: a, format: f, staleAfter: null}]}",
        "spec.channels[].staleAfter: type"),
    (CrdKind::Device, "spec: {channels: [{name: a, format: f}, {name: a, format: g}]}",
        "spec.channels: duplicate"),

    (CrdKind::PushFormat, "spec: {codec: json}", "spec.codec: enum"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: /ts}}", "spec.timestamp: required unit"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: ts, unit: Seconds}}",
        "spec.timestamp.pointer: pattern"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: /ts, unit: Hours}}", "spec.timestamp.unit: enum"),
    (CrdKind::PushFormat, "spec: {timestamp: {pointer: /ts, unit: Seconds, maxAge: 30}}",
        "spec.timestamp.maxAge: type"),
    (CrdKind::PushFormat, "spec: {delivery: {policy: All}}", "spec.delivery.policy: enum"),
    (CrdKind::PushFormat, "spec: {delivery: {minInterval: 0.2s}}", "spec.delivery.minInterval: pattern"),
    (CrdKind::PushFormat, "spec: {when: ''}", "spec.when: minLength"),
    (CrdKind::PushFormat, "spec: {fields: []}", "spec.fields: minItems"),
    (CrdKind::PushFormat, "spec: {fields: [{pointer: /a, type: Number}]}", "spec.fields[]: required name"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a-b, pointer: /a, type: Number}]}",
        "spec.fields[].name: pattern"),
    (CrdKind::PushFormat, "spec: {fields: [{name: 1a, pointer: /a, type: Number}]}",
        "spec.fields[].name: pattern"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: $.a, type: Number}]}",
        "spec.fields[].pointer: pattern"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: 7, type: Number}]}",
        "spec.fields[].pointer: type"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Float}]}",
        "spec.fields[].type: enum"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, expression: ''}]}",
        "spec.fields[].expression: minLength"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: 10}]}",
        "spec.fields[].decimals: maximum"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: -1}]}",
        "spec.fields[].decimals: minimum"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: 1.5}]}",
        "spec.fields[].decimals: type"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, unit: ''}]}",
        "spec.fields[].unit: minLength"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {}}]}",
        "spec.fields[].values: minProperties"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {'0': ''}}]}",
        "spec.fields[].values.0: minLength"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {'0': 1}}]}",
        "spec.fields[].values.0: type"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {'0': z}, otherwise: \
        ''}]}", "spec.fields[].otherwise: minLength"),
    (CrdKind::PushFormat, "spec: {record: {}}", "spec.record: required merge"),
    (CrdKind::PushFormat, "spec: {record: {merge: true, expireFields: ten}}",
        "spec.record.expireFields: pattern"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Bool, onChange: 1}]}",
        "spec.fields[].onChange: type"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, pointr: /b}]}",
        "spec.fields[].pointr: unknown"),
    (CrdKind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Bool}, {name: a, pointer: /b, type: \
        Bool}]}", "spec.fields: duplicate"),
];

#[test]
fn the_schemas_refuse_objects_with_one_error() {
    for (kind, patch, problem) in CASES {
        assert_eq!(broken_structure(*kind, &patched(good(*kind), patch)), [*problem], "{patch}");
    }
}

#[test]
fn lists_and_maps_are_bounded() {
    let fields: Vec<String> = (0..129).map(|n| format!("{{name: f{n}, pointer: /a, type: Bool}}")).collect();
    let patch = format!("spec: {{fields: [{}]}}", fields.join(", "));
    assert_eq!(
        broken_structure(CrdKind::PushFormat, &patched(good(CrdKind::PushFormat), &patch)),
        ["spec.fields: maxItems"]
    );
    let words: Vec<String> = (0..257).map(|n| format!("'{n}': w")).collect();
    let patch =
        format!("spec: {{fields: [{{name: a, pointer: /a, type: Enum, values: {{{}}}}}]}}", words.join(", "));
    assert_eq!(
        broken_structure(CrdKind::PushFormat, &patched(good(CrdKind::PushFormat), &patch)),
        ["spec.fields[].values: maxProperties"]
    );
    let channels: Vec<String> = (0..33).map(|n| format!("{{name: c{n}, format: f}}")).collect();
    let patch = format!("spec: {{channels: [{}]}}", channels.join(", "));
    assert_eq!(
        broken_structure(CrdKind::Device, &patched(good(CrdKind::Device), &patch)),
        ["spec.channels: maxItems"]
    );
}
