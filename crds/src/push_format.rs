//! `PushFormat`: how messages become the values that clients get.

// KubeSchema derives a private copy of each public struct, which the first lint reports; the second one
// reports the types of the printer columns as repetitions.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::duration::Duration;
use crate::pattern;

/// How the messages of a channel become the values that clients get.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "PushFormat",
    plural = "pushformats",
    shortname = "fpf",
    category = "flutecast",
    namespaced,
    status = "PushFormatStatus",
    derive = "PartialEq",
    doc = "How the messages of a channel become the values that clients get.",
    printcolumn(name = "Codec", type_ = "string", json_path = ".spec.codec"),
    printcolumn(name = "Delivery", type_ = "string", json_path = ".spec.delivery.policy"),
    printcolumn(
        name = "Channels",
        type_ = "integer",
        json_path = ".status.channels",
        description = "The number of channels, of devices and of tenants' templates, that use the format"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime",
        description = "The time since Ready last changed"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("!has(self.record) || self.delivery.policy == 'Latest'")
        .message("record is only for policy Latest: a record is the newest state of a channel, and with \
            Every each message stands alone")
        .field_path(".record")
        .reason(Reason::FieldValueForbidden)
)]
#[serde(rename_all = "camelCase")]
pub struct PushFormatSpec {
    /// The encoding of payloads.
    #[serde(default)]
    pub codec: Codec,
    /// Where a message holds its time. Left out: the time at which the broker stored the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampSpec>,
    /// Which messages clients get.
    #[serde(default)]
    pub delivery: DeliverySpec,
    /// For messages that carry only what changed: they are merged to one record, and clients get the whole of
    /// it each time. Only with policy Latest. Left out: each message stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordSpec>,
    /// A CEL expression over `values`, the formatted fields. A message is pushed only if it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// The fields, in the order in which clients get them.
    #[schemars(
        length(min = 1, max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub fields: Vec<FieldSpec>,
}

/// The encoding of payloads.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON in UTF-8.
    #[default]
    #[serde(rename = "JSON")]
    Json,
}

/// Where a message holds its time, and which times are accepted.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TimestampSpec {
    /// A JSON pointer to the time.
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub pointer: String,
    /// The unit or the format of the time.
    pub unit: TimestampUnit,
    /// A message is dropped if its time is further back than this when the broker stores it, by the broker's
    /// clock. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('8760h')")
            .message("maxAge must be 1s to 8760h")
    )]
    pub max_age: Option<Duration>,
    /// A message is dropped if its time is further ahead than this when the broker stores it, by the broker's
    /// clock. Left out: no limit; the time of storing then counts in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("duration(self) <= duration('24h')").message("maxAhead must be 0s to 24h")
    )]
    pub max_ahead: Option<Duration>,
}

/// The unit of a timestamp.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampUnit {
    /// Seconds since 1970-01-01T00:00:00Z, possibly with a fraction.
    Seconds,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Milliseconds,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Microseconds,
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    Nanoseconds,
    /// A string such as `2026-11-22T10:00:00.123Z`, or with an offset.
    #[serde(rename = "RFC3339")]
    Rfc3339,
}

/// Which messages clients get.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.minInterval) || self.policy == 'Latest'")
        .message("minInterval is only for policy Latest: with Every no message is skipped")
        .field_path(".minInterval")
        .reason(Reason::FieldValueForbidden)
)]
pub struct DeliverySpec {
    /// Latest: a newer message replaces an older one. Every: no message is skipped (states, alarms, counts).
    #[serde(default)]
    pub policy: DeliveryPolicy,
    /// With Latest: the least time between two messages of a channel. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('1h')")
            .message("minInterval must be 10ms to 1h")
    )]
    pub min_interval: Option<Duration>,
}

/// Whether messages of a channel may be skipped.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeliveryPolicy {
    /// A newer message replaces an older one.
    #[default]
    Latest,
    /// No message is skipped: for states, alarms and counts.
    Every,
}

/// How messages that carry only what changed are merged to one record.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecordSpec {
    /// Always true: of each field the newest value counts, from whichever message it came.
    #[x_kube(
        validation = Rule::new("self").message("merge must be true; leave record out if each message stands \
            alone")
    )]
    pub merge: bool,
    /// A field leaves the record when the channel's newest message was stored so long after the one that
    /// carried the field. Left out: `retention.maxAge` of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')")
            .message("expireFields must be 1s to 24h")
    )]
    pub expire_fields: Option<Duration>,
}

/// A field of the values that clients get. Exactly one of `pointer` and `expression` is set.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.pointer) != has(self.expression)")
        .message("exactly one of pointer (a raw value of the payload) and expression (a computed value) must \
            be set")
        .field_path(".pointer"),
    validation = Rule::new("!has(self.pointer) || has(self.type)")
        .message("type must be set with pointer: Number, String, Bool or Enum")
        .field_path(".type")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.expression) || !has(self.type)")
        .message("type is only for pointer: the type of an expression is what it results in")
        .field_path(".type")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.scale) || (has(self.type) && self.type == 'Number')")
        .message("scale is only for type Number")
        .field_path(".scale")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.offset) || (has(self.type) && self.type == 'Number')")
        .message("offset is only for type Number")
        .field_path(".offset")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.decimals) || has(self.expression) || (has(self.type) && self.type == \
        'Number')")
        .message("decimals is only for type Number and for expression")
        .field_path(".decimals")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.unit) || has(self.expression) || (has(self.type) && self.type == \
        'Number')")
        .message("unit is only for type Number and for expression")
        .field_path(".unit")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.deadband) || has(self.expression) || (has(self.type) && self.type == \
        'Number')")
        .message("deadband is only for type Number and for expression")
        .field_path(".deadband")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.values) || (has(self.type) && self.type == 'Enum')")
        .message("values is only for type Enum")
        .field_path(".values")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new("!has(self.type) || self.type != 'Enum' || has(self.values)")
        .message("values must be set with type Enum: the raw value as text, and the word for it")
        .field_path(".values")
        .reason(Reason::FieldValueRequired),
    validation = Rule::new("!has(self.otherwise) || (has(self.type) && self.type == 'Enum')")
        .message("otherwise is only for type Enum")
        .field_path(".otherwise")
        .reason(Reason::FieldValueForbidden)
)]
pub struct FieldSpec {
    /// The name of the field in `values`.
    #[schemars(length(min = 1, max = 64), regex(pattern = pattern::FIELD))]
    #[x_kube(
        validation = Rule::new("!(self in ['true', 'false', 'null', 'in'])")
            .message("name must not be true, false, null or in: expressions could not use it")
    )]
    pub name: String,
    /// A JSON pointer (RFC 6901) to the raw value in the payload; the empty one refers to the whole payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub pointer: Option<String>,
    /// A CEL expression over `values`, which holds the fields before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,
    /// The type of the formatted value. Required with `pointer`, forbidden with `expression`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FieldType")]
    pub kind: Option<FieldType>,
    /// Number: the factor of the raw value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("double(self) != 0.0").message("scale must not be 0: every value would \
        be the offset"))]
    pub scale: Option<f64>,
    /// Number: what is added after scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
    /// Number, or a computed number: the decimals to round to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub decimals: Option<u8>,
    /// Number, or a computed number: the unit to display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub unit: Option<String>,
    /// Number, or a computed number: the smallest change since the last push that causes another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("double(self) > 0.0").message("deadband must be greater than 0; leave it \
        out to push every change"))]
    pub deadband: Option<f64>,
    /// Enum: the words that clients get, by raw value as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 256), transform = word_length)]
    pub values: BTreeMap<String, String>,
    /// Enum: the word that clients get for a raw value that is not in `values`. Left out: such a value is
    /// shown as `null`, and named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub otherwise: Option<String>,
    /// Whether only a changed value causes a push.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_change: bool,
}

/// Limits the length of the words of an Enum.
fn word_length(schema: &mut Schema) {
    if let Some(words) = schema.get_mut("additionalProperties").and_then(Value::as_object_mut) {
        words.insert("minLength".to_owned(), 1.into());
        words.insert("maxLength".to_owned(), 64.into());
    }
}

/// The type of a formatted value.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// A finite number.
    Number,
    /// A string.
    String,
    /// true or false; raw 0 and 1 are accepted too.
    Bool,
    /// One of the words in `values`.
    Enum,
}

/// The observed state of a format.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PushFormatStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions Ready, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The version that is in force: the last one that compiled. Absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<FormatVersion>,
    /// The number of channels that use the format, of devices and of tenants' templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}

/// A version of a format.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FormatVersion {
    /// The generation of its spec. Left out if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the operator first saw it. Left out if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
