//! `Device`: a machine, its code and its channels.

// KubeSchema derives a private copy of each public struct, which the first lint reports; the second one
// reports the types of the printer columns as repetitions.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::pattern;

/// A device of a tenant: the name that people use for it, and the channels that it sends.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "Device",
    plural = "devices",
    shortname = "fd",
    category = "flutecast",
    namespaced,
    status = "DeviceStatus",
    derive = "PartialEq",
    doc = "A device of a tenant: the name that people use for it, and the channels that it sends.",
    printcolumn(
        name = "Tenant",
        type_ = "string",
        json_path = ".spec.tenant",
        description = "The tenant that owns the device"
    ),
    printcolumn(
        name = "Code",
        type_ = "string",
        json_path = ".spec.deviceCode",
        description = "The name that people use"
    ),
    printcolumn(
        name = "IotId",
        type_ = "string",
        json_path = ".status.iotId",
        description = "The id in subjects and topics"
    ),
    printcolumn(
        name = "Presence",
        type_ = "string",
        json_path = ".status.presence",
        description = "Whether the device sent messages recently"
    ),
    printcolumn(
        name = "For",
        type_ = "date",
        json_path = ".status.lastTransition",
        description = "The time since the presence last changed"
    ),
    printcolumn(
        name = "Messages",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"MessagesUnderstood\")].reason",
        description = "Whether the newest messages are understood, or why they are not"
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
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.iotId) ? self.iotId : '') == (has(oldSelf.iotId) ? oldSelf.iotId : '')")
        .message("iotId can't be set, changed or removed later: it is in the topics that the device \
            publishes to; delete the Device and apply it anew")
        .field_path(".iotId")
        .reason(Reason::FieldValueForbidden)
)]
pub struct DeviceSpec {
    /// The name of the Tenant, in the same namespace, that owns the device. Can't be changed.
    #[schemars(length(min = 1, max = 63), regex(pattern = pattern::DNS_LABEL))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("tenant can't be changed; delete the Device and apply it anew")
            .reason(Reason::FieldValueForbidden)
    )]
    pub tenant: String,
    /// The name that people in the plant use for the device. Unique within the tenant. Can't be changed.
    #[schemars(length(min = 1, max = 64), regex(pattern = pattern::DEVICE_CODE))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("deviceCode can't be changed, since the iotId comes from it; delete the Device and \
                apply it anew")
            .reason(Reason::FieldValueForbidden)
    )]
    pub device_code: String,
    /// The id of the device in subjects and topics, if another platform has issued one. Left out or empty: an
    /// id is generated from tenant and device code, always the same one. Can't be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = pattern::IOT_ID))]
    pub iot_id: Option<String>,
    /// Where the device stands, for people.
    #[cfg(feature = "next-version")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub location: Option<String>,
    /// The channels that the device sends, one for each kind of parameters.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub channels: Vec<DeviceChannel>,
}

impl DeviceSpec {
    /// Returns the pinned iotId; `None` if it is missing or empty.
    #[must_use]
    pub fn iot_id_pin(&self) -> Option<&str> {
        self.iot_id.as_deref().filter(|id| !id.is_empty())
    }
}

/// A channel of a device: one kind of its parameters, with a topic and a format of its own.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceChannel {
    /// The name of the channel; the last token of its topic.
    #[schemars(length(min = 1, max = 32), regex(pattern = pattern::CHANNEL))]
    pub name: String,
    /// The name of the PushFormat of its messages, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::FORMAT))]
    pub format: String,
    /// The time without a message after which the channel's values are stale. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('168h')")
            .message("staleAfter must be 1s to 168h")
    )]
    pub stale_after: Option<Duration>,
}

/// The observed state of a device.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions Ready, Reconciling and Stalled, and MessagesUnderstood: whether the newest message of
    /// each channel could be shown, or why not. The last one has no part in Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The id of the device in subjects and topics, pinned or generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iot_id: Option<String>,
    /// The NATS subjects to which the device publishes, in the order of `spec.channels`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub subjects: Vec<String>,
    /// The corresponding MQTT topics, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub mqtt_topics: Vec<String>,
    /// Whether the device sent messages recently. Written when it changes, not for each message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Presence")]
    pub presence: Option<Presence>,
    /// The time at which `presence` last changed, by the broker's clock. Silent: the end of the last
    /// `staleAfter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition: Option<Time>,
}

/// Whether a device sent messages recently.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// The last message of at least one channel is younger than its `staleAfter`.
    Online,
    /// The last message of each channel is older than its `staleAfter`.
    Silent,
    /// No channel has a `staleAfter`, or the presence is not determined yet.
    Unknown,
}
