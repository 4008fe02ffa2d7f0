//! Objects that the patterns, bounds, enums and list keys of the schema refuse.

use flutecast_crds::definition::Kind;

use super::support::{broken_structure, good, patched};

/// Kind, what is changed in the good object, and what the schema says: path and keyword.
#[rustfmt::skip]
const CASES: &[(Kind, &str, &str)] = &[
    (Kind::Tenant, "spec: null", ": required spec"),
    (Kind::Tenant, "spec: {displayname: x}", "spec.displayname: unknown"),
    (Kind::Tenant, "spec: {displayName: ''}", "spec.displayName: minLength"),
    (Kind::Tenant, "spec: {retention: {maxAge: 1d}}", "spec.retention.maxAge: pattern"),
    (Kind::Tenant, "spec: {retention: {maxAge: 3600}}", "spec.retention.maxAge: type"),
    (Kind::Tenant, "spec: {retention: {maxAge: 1.5h}}", "spec.retention.maxAge: pattern"),
    (Kind::Tenant, "spec: {retention: {maxBytes: 512MB}}", "spec.retention.maxBytes: pattern"),
    (Kind::Tenant, "spec: {retention: {maxBytes: 0Mi}}", "spec.retention.maxBytes: pattern"),
    (Kind::Tenant, "spec: {retention: {maxMessagesPerSubject: 0}}", "spec.retention.maxMessagesPerSubject: minimum"),
    (Kind::Tenant, "spec: {retention: {maxMessagesPerSubject: 1000001}}", "spec.retention.maxMessagesPerSubject: maximum"),
    (Kind::Tenant, "spec: {retention: {storage: file}}", "spec.retention.storage: enum"),
    (Kind::Tenant, "spec: {retention: {replicas: 0}}", "spec.retention.replicas: minimum"),
    (Kind::Tenant, "spec: {retention: {replicas: 6}}", "spec.retention.replicas: maximum"),
    (Kind::Tenant, "spec: {retention: {onDelete: Purge}}", "spec.retention.onDelete: enum"),
    (Kind::Tenant, "spec: {sources: [{name: A, subject: a, channel: c, iotId: {pointer: /a}}]}", "spec.sources[].name: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a..b, channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a.b*, channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a.>.b, channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: '>', channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: 'a b', channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a., channel: c, iotId: {pointer: /a}}]}", "spec.sources[].subject: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: C, iotId: {pointer: /a}}]}", "spec.sources[].channel: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: a}}]}", "spec.sources[].iotId.pointer: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a~2}}]}", "spec.sources[].iotId.pointer: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: 0}}]}", "spec.sources[].iotId.subjectToken: minimum"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: 65}}]}", "spec.sources[].iotId.subjectToken: maximum"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {subjectToken: '3'}}]}", "spec.sources[].iotId.subjectToken: type"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a, kind: Code}}]}", "spec.sources[].iotId.kind: enum"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a}, items: r}]}", "spec.sources[].items: pattern"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c}]}", "spec.sources[]: required iotId"),
    (Kind::Tenant, "spec: {sources: [{name: a, subject: a, channel: c, iotId: {pointer: /a}}, {name: a, subject: b, channel: c, iotId: {pointer: /a}}]}",
        "spec.sources: duplicate"),
    (Kind::Tenant, "spec: {access: {anonymous: 'yes'}}", "spec.access.anonymous: type"),
    (Kind::Tenant, "spec: {access: {allowedOrigins: [screens.acme.example]}}", "spec.access.allowedOrigins[]: pattern"),
    (Kind::Tenant, "spec: {access: {allowedOrigins: ['https://screens.acme.example/']}}", "spec.access.allowedOrigins[]: pattern"),
    (Kind::Tenant, "spec: {access: {allowedOrigins: ['https://*.acme.example']}}", "spec.access.allowedOrigins[]: pattern"),
    (Kind::Tenant, "spec: {access: {allowedOrigins: ['*', '*']}}", "spec.access.allowedOrigins: duplicate"),
    (Kind::Tenant, "spec: {access: {tokens: {}}}", "spec.access.tokens: required secretName"),
    (Kind::Tenant, "spec: {access: {tokens: {secretName: My_Secret}}}", "spec.access.tokens.secretName: pattern"),
    (Kind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: 'a b', devices: [C]}]}}}",
        "spec.access.tokens.restricted[].name: pattern"),
    (Kind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: []}]}}}",
        "spec.access.tokens.restricted[].devices: minItems"),
    (Kind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: ['*']}]}}}",
        "spec.access.tokens.restricted[].devices[]: pattern"),
    (Kind::Tenant, "spec: {access: {tokens: {secretName: s, restricted: [{name: a, devices: [C]}, {name: a, devices: [D]}]}}}",
        "spec.access.tokens.restricted: duplicate"),
    (Kind::Tenant, "spec: {enrollment: {policy: Auto}}", "spec.enrollment.policy: enum"),
    (Kind::Tenant, "spec: {enrollment: {codePattern: ''}}", "spec.enrollment.codePattern: minLength"),
    (Kind::Tenant, "spec: {enrollment: {template: {}}}", "spec.enrollment.template: required channels"),
    (Kind::Tenant, "spec: {enrollment: {template: {channels: []}}}", "spec.enrollment.template.channels: minItems"),
    (Kind::Tenant, "spec: {enrollment: {template: {channels: [{name: a, format: f}, {name: a, format: g}]}}}",
        "spec.enrollment.template.channels: duplicate"),
    (Kind::Tenant, "spec: {enrollment: {template: {labels: {line: -l}, channels: [{name: a, format: f}]}}}",
        "spec.enrollment.template.labels.line: pattern"),
    (Kind::Tenant, "spec: {quota: {maxDevices: 0}}", "spec.quota.maxDevices: minimum"),
    (Kind::Tenant, "spec: {quota: {maxClients: 1000001}}", "spec.quota.maxClients: maximum"),

    (Kind::Device, "spec: {tenant: null}", "spec: required tenant"),
    (Kind::Device, "spec: {deviceCode: null}", "spec: required deviceCode"),
    (Kind::Device, "spec: {channels: null}", "spec: required channels"),
    (Kind::Device, "spec: {tenant: Acme}", "spec.tenant: pattern"),
    (Kind::Device, "spec: {deviceCode: 'CORR 01'}", "spec.deviceCode: pattern"),
    (Kind::Device, "spec: {deviceCode: '-1'}", "spec.deviceCode: pattern"),
    (Kind::Device, "spec: {deviceCode: 1}", "spec.deviceCode: type"),
    (Kind::Device, "spec: {iotId: a.b}", "spec.iotId: pattern"),
    (Kind::Device, "spec: {iotId: a2345678901234567890123456789012345678901234567890123456789012345}", "spec.iotId: maxLength"),
    (Kind::Device, "spec: {channels: []}", "spec.channels: minItems"),
    (Kind::Device, "spec: {channels: [{name: telemetry}]}", "spec.channels[]: required format"),
    (Kind::Device, "spec: {channels: [{name: Telemetry, format: f}]}", "spec.channels[].name: pattern"),
    (Kind::Device, "spec: {channels: [{name: a23456789012345678901234567890123, format: f}]}", "spec.channels[].name: maxLength"),
    (Kind::Device, "spec: {channels: [{name: a, format: F}]}", "spec.channels[].format: pattern"),
    (Kind::Device, "spec: {channels: [{name: a, format: f, staleAfter: 10}]}", "spec.channels[].staleAfter: type"),
    (Kind::Device, "spec: {channels: [{name: a, format: f, staleAfter: ten}]}", "spec.channels[].staleAfter: pattern"),
    (Kind::Device, "spec: {channels: [{name: a, format: f, staleAfter: null}]}", "spec.channels[].staleAfter: type"),
    (Kind::Device, "spec: {channels: [{name: a, format: f}, {name: a, format: g}]}", "spec.channels: duplicate"),

    (Kind::PushFormat, "spec: {codec: json}", "spec.codec: enum"),
    (Kind::PushFormat, "spec: {timestamp: {pointer: /ts}}", "spec.timestamp: required unit"),
    (Kind::PushFormat, "spec: {timestamp: {pointer: ts, unit: Seconds}}", "spec.timestamp.pointer: pattern"),
    (Kind::PushFormat, "spec: {timestamp: {pointer: /ts, unit: Hours}}", "spec.timestamp.unit: enum"),
    (Kind::PushFormat, "spec: {timestamp: {pointer: /ts, unit: Seconds, maxAge: 30}}", "spec.timestamp.maxAge: type"),
    (Kind::PushFormat, "spec: {delivery: {policy: All}}", "spec.delivery.policy: enum"),
    (Kind::PushFormat, "spec: {delivery: {minInterval: 0.2s}}", "spec.delivery.minInterval: pattern"),
    (Kind::PushFormat, "spec: {when: ''}", "spec.when: minLength"),
    (Kind::PushFormat, "spec: {fields: []}", "spec.fields: minItems"),
    (Kind::PushFormat, "spec: {fields: [{pointer: /a, type: Number}]}", "spec.fields[]: required name"),
    (Kind::PushFormat, "spec: {fields: [{name: a-b, pointer: /a, type: Number}]}", "spec.fields[].name: pattern"),
    (Kind::PushFormat, "spec: {fields: [{name: 1a, pointer: /a, type: Number}]}", "spec.fields[].name: pattern"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: $.a, type: Number}]}", "spec.fields[].pointer: pattern"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: 7, type: Number}]}", "spec.fields[].pointer: type"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Float}]}", "spec.fields[].type: enum"),
    (Kind::PushFormat, "spec: {fields: [{name: a, expression: ''}]}", "spec.fields[].expression: minLength"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: 10}]}", "spec.fields[].decimals: maximum"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: -1}]}", "spec.fields[].decimals: minimum"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, decimals: 1.5}]}", "spec.fields[].decimals: type"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, unit: ''}]}", "spec.fields[].unit: minLength"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {}}]}", "spec.fields[].values: minProperties"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {'0': ''}}]}", "spec.fields[].values.0: minLength"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Enum, values: {'0': 1}}]}", "spec.fields[].values.0: type"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Bool, onChange: 1}]}", "spec.fields[].onChange: type"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Number, pointr: /b}]}", "spec.fields[].pointr: unknown"),
    (Kind::PushFormat, "spec: {fields: [{name: a, pointer: /a, type: Bool}, {name: a, pointer: /b, type: Bool}]}", "spec.fields: duplicate"),
];

#[test]
fn the_schema_refuses_what_is_wrong_in_one_place() {
    for (kind, patch, problem) in CASES {
        assert_eq!(broken_structure(*kind, &patched(good(*kind), patch)), [*problem], "{patch}");
    }
}

#[test]
fn lists_and_maps_are_bounded() {
    let fields: Vec<String> = (0..129).map(|n| format!("{{name: f{n}, pointer: /a, type: Bool}}")).collect();
    let patch = format!("spec: {{fields: [{}]}}", fields.join(", "));
    assert_eq!(
        broken_structure(Kind::PushFormat, &patched(good(Kind::PushFormat), &patch)),
        ["spec.fields: maxItems"]
    );
    let words: Vec<String> = (0..257).map(|n| format!("'{n}': w")).collect();
    let patch =
        format!("spec: {{fields: [{{name: a, pointer: /a, type: Enum, values: {{{}}}}}]}}", words.join(", "));
    assert_eq!(
        broken_structure(Kind::PushFormat, &patched(good(Kind::PushFormat), &patch)),
        ["spec.fields[].values: maxProperties"]
    );
    let channels: Vec<String> = (0..33).map(|n| format!("{{name: c{n}, format: f}}")).collect();
    let patch = format!("spec: {{channels: [{}]}}", channels.join(", "));
    assert_eq!(
        broken_structure(Kind::Device, &patched(good(Kind::Device), &patch)),
        ["spec.channels: maxItems"]
    );
}
