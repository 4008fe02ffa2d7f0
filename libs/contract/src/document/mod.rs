//! The YAML documents that the operator writes and the data plane reads.
//!
//! - [`ShardDocument`]: the devices of a tenant and how their messages become values. One file
//!   `flutecast-<tenant>-<shard>.yaml`, or one ConfigMap with the key `mapping.yaml`, for each shard.
//! - [`AccessDocument`]: who may read which tenant. One file `flutecast-access.yaml`, or one Secret with the
//!   key `access.yaml`, in all. Credentials are thus kept apart from the mapping.
//!
//! Documents with an unknown `apiVersion` are refused; unknown fields are ignored.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{ChannelName, DeviceCode, FormatName, IotId, SourceName, TenantName};

pub use text::{InvalidDocument, MAX_TEXT, token_sha256};

/// The version of both documents that this crate reads and writes.
pub const API_VERSION: &str = "mapping.flutecast.io/v1";

/// A part of a tenant's devices. Shards 0 to `shards - 1` together are the tenant's mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// The tenant that owns the devices.
    pub tenant: TenantName,
    /// The number of this shard, from 0.
    pub shard: u32,
    /// The number of shards of the tenant.
    pub shards: u32,
    /// A digest of the content, see [`crate::shard::revision`].
    pub revision: String,
    /// The settings of the whole tenant. `Some` in shard 0, `None` in the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<TenantSettings>,
    /// The formats that the devices of this shard use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub formats: BTreeMap<FormatName, FormatDocument>,
    /// The devices of this shard, by iotId. In an [`Arc`], since the revisions of a document share most of
    /// their devices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<IotId, Arc<DeviceDocument>>,
}

/// The settings of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantSettings {
    /// The tenant's name for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The name of the tenant's stream, `IOT_<tenant>`.
    pub stream: String,
    /// The most clients of this tenant that one pod serves at once; `None` if only the pod's own limit holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
    /// The sources whose messages name their devices in the payload; the data plane splits them. (NATS
    /// transforms the messages of those with the id in the subject.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PayloadSourceDocument>,
}

/// A source whose messages name their devices in the payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayloadSourceDocument {
    /// The source's name within the tenant.
    pub name: SourceName,
    /// The stream that captures the source's messages, `SRC_<tenant>_<source>`.
    pub stream: String,
    /// The durable consumer that the pods share.
    pub consumer: String,
    /// The channel that the items belong to.
    pub channel: ChannelName,
    /// The JSON pointer (RFC 6901), within an item, to the id of its device.
    pub id_pointer: String,
    /// The kind of the id.
    pub id_kind: IdKind,
    /// The JSON pointer to the array of items; `None` if the message is a single item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,
}

/// The kind of id by which an external source names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdKind {
    /// The iotId.
    IotId,
    /// The device code.
    DeviceCode,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceDocument {
    /// The device code.
    pub code: DeviceCode,
    /// The name of the Device object.
    pub name: String,
    /// The labels of the Device object; selectors match them.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub labels: Arc<BTreeMap<String, String>>,
    /// The location of the device.
    #[cfg(feature = "next-version")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The device's channels, by name. In an [`Arc`], since many devices have the same channels.
    pub channels: Arc<BTreeMap<ChannelName, ChannelDocument>>,
}

fn is_empty(labels: &Arc<BTreeMap<String, String>>) -> bool {
    labels.is_empty()
}

/// A channel of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelDocument {
    /// The format of the channel's messages; one of the shard's `formats`.
    pub format: FormatName,
    /// The milliseconds without a message after which the values are stale; `None` if they never are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after_ms: Option<u64>,
}

/// The conversion of a message to the values that clients get. `flutecast_format` compiles it to a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormatDocument {
    /// The encoding of payloads.
    pub codec: Codec,
    /// The place of the time in a message; `None` for the time at which the broker stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampDocument>,
    /// The selection of the messages that clients get.
    #[serde(default)]
    pub delivery: DeliveryDocument,
    /// Merges the messages of a channel to a record; `None` if each message stands for itself. Only with
    /// [`DeliveryPolicy::Latest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordDocument>,
    /// A CEL expression over `values`. A message is pushed only if it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The fields, in the order in which clients get them.
    pub fields: Vec<FieldDocument>,
}

/// The encoding of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// JSON (RFC 8259) in UTF-8.
    #[serde(rename = "JSON")]
    Json,
}

/// The place of the time in a message, and the times that are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimestampDocument {
    /// The JSON pointer to the time.
    pub pointer: String,
    /// The unit or the format of the time.
    pub unit: TimestampUnit,
    /// The milliseconds of age on arrival beyond which a message is dropped; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// The milliseconds ahead of the broker's clock beyond which a message is dropped; `None` for no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead_ms: Option<u64>,
}

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampUnit {
    /// Seconds since 1970-01-01T00:00:00Z, possibly with a fraction.
    Seconds,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Milliseconds,
    /// Microseconds since 1970-01-01T00:00:00Z.
    Microseconds,
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    Nanoseconds,
    /// A string such as `2026-11-22T10:00:00.123Z` or with an offset.
    #[serde(rename = "RFC3339")]
    Rfc3339,
}

/// The merging of messages that carry only some of the fields: clients get each field's newest value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordDocument {
    /// The milliseconds, before the newest message was stored, beyond which a field's value leaves the
    /// record; `None` if only the tail's length bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_fields_ms: Option<u64>,
}

/// The selection of a channel's messages that clients get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDocument {
    /// The policy on skipping messages.
    #[serde(default)]
    pub policy: DeliveryPolicy,
    /// The least milliseconds between two messages of a channel; only with [`DeliveryPolicy::Latest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_interval_ms: Option<u64>,
}

/// The policy on skipping messages of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryPolicy {
    /// A newer message replaces an older one.
    #[default]
    Latest,
    /// No message is skipped: for states, alarms and counts.
    Every,
}

/// A field of the values that clients get. Exactly one of `pointer` and `expression` is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldDocument {
    /// The name in `values`.
    pub name: String,
    /// A JSON pointer (RFC 6901) to the raw value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A CEL expression over `values`, which holds the fields before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// The type of the formatted value; required with `pointer`, forbidden with `expression`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldType>,
    /// Number: the factor of the raw value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Number: what is added after scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
    /// Number and computed numbers: the decimals to round to, 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// The unit to display (`m/min`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Number and computed numbers: the smallest change since the last push that causes another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
    /// Enum: the words that clients get, by raw value as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Enum: the word for raw values that are not in `values`; `None` if they can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<String>,
    /// `true` if only a changed value causes a push.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_change: bool,
}

/// The type of a formatted value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Who may read which tenant; one document for all tenants of a release. It is a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// The readers of each tenant. A tenant that is missing here can't be read.
    #[serde(default)]
    pub tenants: BTreeMap<TenantName, TenantAccess>,
}

/// Who may read a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantAccess {
    /// `true` if clients without a token may read.
    #[serde(default)]
    pub anonymous: bool,
    /// The web origins whose pages may read, such as `https://screens.acme.example`; `*` for all. If empty,
    /// only the pages of the data plane itself may, and programs other than browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The static tokens, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, TokenAccess>,
}

/// A static token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAccess {
    /// The SHA-256 of the token as 64 lower-case hexadecimal digits. The token itself stays in its Secret.
    pub sha256: String,
    /// The devices that the token may read; `None` for all devices of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceCode>>,
}
