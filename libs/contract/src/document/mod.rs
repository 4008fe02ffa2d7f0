//! The documents that the operator writes and the data plane reads, as YAML.
//!
//! There are two kinds. [`ShardDocument`]: which devices a tenant has and how their messages become values;
//! one file `flutecast-<tenant>-<shard>.yaml` (in Kubernetes: one ConfigMap, key `mapping.yaml`) each.
//! [`AccessDocument`]: who may read what; one file `flutecast-access.yaml` (in Kubernetes: one Secret, key
//! `access.yaml`) in all. What opens doors travels apart from the mapping. A reader refuses a document whose
//! `apiVersion` it doesn't know and ignores fields it doesn't know.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{ChannelName, DeviceCode, FormatName, IotId, SourceName, TenantName};

pub use text::{InvalidDocument, MAX_TEXT, token_sha256};

/// The version of both documents that this crate reads and writes.
pub const API_VERSION: &str = "mapping.flutecast.io/v1";

/// One part of a tenant's devices. All parts together, shard 0 to `shards - 1`, are the tenant's mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// The tenant that this is about.
    pub tenant: TenantName,
    /// The number of this shard, from 0.
    pub shard: u32,
    /// How many shards the tenant has.
    pub shards: u32,
    /// A digest of the content; two documents with the same revision are the same.
    pub revision: String,
    /// What holds for the whole tenant. In shard 0, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<TenantSettings>,
    /// The formats that this shard's devices use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub formats: BTreeMap<FormatName, FormatDocument>,
    /// The devices of this shard, by iotId. They are shared with other versions of the document, which differ
    /// in few of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<IotId, Arc<DeviceDocument>>,
}

/// What holds for a whole tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantSettings {
    /// The tenant's name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The name of the tenant's stream, `IOT_<tenant>`.
    pub stream: String,
    /// How many clients may be connected to one pod at once for this tenant; none: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
    /// The sources whose id stands in the payload; the data plane splits them. (Those whose id stands in the
    /// subject are transformed by NATS and never seen by the data plane.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PayloadSourceDocument>,
}

/// A source whose messages name the device in the payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PayloadSourceDocument {
    /// The source's name within the tenant.
    pub name: SourceName,
    /// The stream that captures it, `SRC_<tenant>_<source>`.
    pub stream: String,
    /// The durable consumer that the pods share.
    pub consumer: String,
    /// The channel that its items belong to.
    pub channel: ChannelName,
    /// Where each item names its device: a JSON pointer (RFC 6901) within the item.
    pub id_pointer: String,
    /// What the value at `id_pointer` is.
    pub id_kind: IdKind,
    /// Where the message holds an array of items; none: the message is one item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,
}

/// How an external source names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdKind {
    /// By its iotId.
    IotId,
    /// By its device code.
    DeviceCode,
}

/// One device.
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
    /// The device's channels, by name. Many devices have the same.
    pub channels: Arc<BTreeMap<ChannelName, ChannelDocument>>,
}

fn is_empty(labels: &Arc<BTreeMap<String, String>>) -> bool {
    labels.is_empty()
}

/// One channel of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelDocument {
    /// The format that its messages are in; one of the shard's `formats`.
    pub format: FormatName,
    /// After how many milliseconds of silence a value counts as stale; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after_ms: Option<u64>,
}

/// How a message becomes what clients see: the input of [`crate::program::Program::compile`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FormatDocument {
    /// How a payload is encoded.
    pub codec: Codec,
    /// Where the message's own time stands; none: the time at which the broker stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampDocument>,
    /// What clients need of it.
    #[serde(default)]
    pub delivery: DeliveryDocument,
    /// A CEL expression over `values`; a message for which it is false is not pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The fields, in the order in which clients get them.
    pub fields: Vec<FieldDocument>,
}

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// JSON (RFC 8259) in UTF-8.
    #[serde(rename = "JSON")]
    Json,
}

/// Where the message's own time stands, and which times are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimestampDocument {
    /// A JSON pointer to the time.
    pub pointer: String,
    /// What the value there is.
    pub unit: TimestampUnit,
    /// A message that is older than this when it arrives is dropped, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// A message whose time is further ahead of our clock than this is dropped, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ahead_ms: Option<u64>,
}

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampUnit {
    /// Seconds since 1970-01-01T00:00:00Z; may have a fraction.
    Seconds,
    /// Milliseconds since then.
    Milliseconds,
    /// Microseconds since then.
    Microseconds,
    /// Nanoseconds since then.
    Nanoseconds,
    /// A string such as `2026-11-22T10:00:00.123Z` or with an offset.
    #[serde(rename = "RFC3339")]
    Rfc3339,
}

/// What clients need of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDocument {
    /// Which messages matter.
    #[serde(default)]
    pub policy: DeliveryPolicy,
    /// At most one message per channel in this time, in milliseconds; with `Latest` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_interval_ms: Option<u64>,
}

/// Which messages of a channel matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryPolicy {
    /// Only the newest.
    #[default]
    Latest,
    /// Each one: on/off, alarms, counts.
    Every,
}

/// One field of what clients get. Exactly one of `pointer` and `expression` is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldDocument {
    /// Its name in `values`.
    pub name: String,
    /// A JSON pointer (RFC 6901) to the raw value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// A CEL expression over `values`, which holds the fields before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// What the raw value becomes; needed with `pointer`, not allowed with `expression`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FieldType>,
    /// Number: multiply by this first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Number: then add this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
    /// Number and computed numbers: round to this many decimals, 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// The unit that people read (`m/min`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Number: a change smaller than this, since the value last pushed, is no reason to push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadband: Option<f64>,
    /// Enum: raw value (as text) to the word that clients get.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// An unchanged value is no reason to push.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_change: bool,
}

/// What a raw value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Who may read what: one document for all tenants of a release. Handle it as a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessDocument {
    /// Always [`API_VERSION`].
    pub api_version: String,
    /// The tenants that may be read at all. A tenant that is not here is read by nobody.
    #[serde(default)]
    pub tenants: BTreeMap<TenantName, TenantAccess>,
}

/// Who may read one tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantAccess {
    /// Everybody.
    #[serde(default)]
    pub anonymous: bool,
    /// The web origins whose pages may read, such as `https://screens.acme.example`; `*` for all. Empty:
    /// pages that the data plane serves itself, and programs that aren't browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The tokens, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, TokenAccess>,
}

/// One static token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenAccess {
    /// SHA-256 of the token, 64 lower-case hexadecimal digits. The token itself never leaves the Secret that
    /// holds it.
    pub sha256: String,
    /// The devices that it opens; none: all of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceCode>>,
}
