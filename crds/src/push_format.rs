//! `PushFormat`: how a message becomes what clients see.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// How the messages of a channel become what clients see.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "PushFormat",
    plural = "pushformats",
    shortname = "fpf",
    category = "flutecast",
    namespaced,
    status = "PushFormatStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PushFormatSpec {
    /// How a payload is encoded.
    #[serde(default)]
    pub codec: Codec,
    /// Where the message's own time stands. Left out: the time at which the broker stored the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampSpec>,
    /// What clients need of the messages.
    #[serde(default)]
    pub delivery: Delivery,
    /// A CEL expression over `values`, the formatted fields; a message for which it is false is not pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The fields, in the order in which clients get them.
    pub fields: Vec<FieldSpec>,
}

/// How a payload is encoded.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON in UTF-8.
    #[default]
    #[serde(rename = "JSON")]
    Json,
}

/// Where the message's own time stands, and which times are believed.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TimestampSpec {
    /// A JSON pointer to the time.
    pub pointer: String,
    /// What the value there is.
    pub unit: TimestampUnit,
    /// A message that is older than this when it arrives is dropped. Left out: none is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// A message whose time is further ahead of the clock than this is dropped. Left out: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead: Option<Duration>,
}

/// The unit of a timestamp.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampUnit {
    /// Seconds since 1970-01-01T00:00:00Z; may have a fraction.
    Seconds,
    /// Milliseconds since then.
    Milliseconds,
    /// Microseconds since then.
    Microseconds,
    /// Nanoseconds since then.
    Nanoseconds,
    /// A string such as `2026-11-22T10:00:00.123Z`, or with an offset.
    #[serde(rename = "RFC3339")]
    Rfc3339,
}

/// What clients need of the messages.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Latest: only the newest message matters. Every: no message is skipped (on/off, alarms, counts).
    #[serde(default)]
    pub policy: DeliveryPolicy,
    /// With Latest: at most one message of a channel in this time. Left out: as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_interval: Option<Duration>,
}

/// Which messages of a channel matter.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeliveryPolicy {
    /// Only the newest.
    #[default]
    Latest,
    /// Each one: on/off, alarms, counts.
    Every,
}

/// One field of what clients get. Exactly one of `pointer` and `expression` is set.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FieldSpec {
    /// Its name in `values`.
    pub name: String,
    /// A JSON pointer (RFC 6901) to the raw value in the payload; the empty one means the whole payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A CEL expression over `values`, which holds the fields before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// What the raw value becomes. Needed with `pointer`, not allowed with `expression`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldType>,
    /// Number: multiply the raw value by this first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Number: then add this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
    /// Number, or a computed number: round to so many decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// The unit that people read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Number: a change smaller than this, since the value last pushed, is no reason to push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
    /// Enum: the raw value as text, and the word that clients get for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// An unchanged value is no reason to push.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_change: bool,
}

/// What a raw value becomes.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// A finite number.
    Number,
    /// A string.
    String,
    /// true or false; 0 and 1 are taken too.
    Bool,
    /// One of the words in `values`.
    Enum,
}

/// What the operator knows of a format.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PushFormatStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many channels of devices use the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}
