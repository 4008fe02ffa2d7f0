//! `Device`: one machine, the name that people use for it, and what it sends.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// A device of a tenant: which name people use for it and which channels it sends.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "Device",
    plural = "devices",
    shortname = "fd",
    category = "flutecast",
    namespaced,
    status = "DeviceStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// The name of the Tenant, in the same namespace, that owns the device. Can't be changed.
    pub tenant: String,
    /// The name by which people in the plant know the device. Unique within the tenant. Can't be changed.
    pub device_code: String,
    /// The id by which the message side knows the device, for ids that another platform issued. Left out or empty: an id is
    /// generated from tenant and device code, always the same one. Can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iot_id: Option<String>,
    /// What the device sends: one channel for each kind of parameters.
    pub channels: Vec<DeviceChannel>,
}

impl DeviceSpec {
    /// The pinned iotId; an empty one counts as none.
    #[must_use]
    pub fn iot_id_pin(&self) -> Option<&str> {
        self.iot_id.as_deref().filter(|id| !id.is_empty())
    }
}

/// One kind of a device's parameters, with its own topic and its own format.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceChannel {
    /// The channel's name; the last token of its topic.
    pub name: String,
    /// The name of the PushFormat, in the same namespace, that its messages are in.
    pub format: String,
    /// After how much silence the channel's values count as stale. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<Duration>,
}

/// What the operator knows of a device.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The id by which the message side knows the device: pinned or generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iot_id: Option<String>,
    /// The NATS subjects to publish to, in the order of `spec.channels`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// The MQTT topics that are the same, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mqtt_topics: Vec<String>,
    /// Whether the device has been heard of lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// When `presence` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Time>,
}

/// Whether a device has been heard of lately.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// At least one channel is younger than its `staleAfter`.
    Online,
    /// No channel is.
    Silent,
    /// No channel has a `staleAfter`, or nobody could find out.
    Unknown,
}
