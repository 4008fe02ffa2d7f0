//! `Tenant`: a customer who owns devices, the retention and the sources of their messages, and their readers.

// KubeSchema derives a private copy of each public struct, which the first lint reports; the second one
// reports the types of the printer columns as repetitions.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::enrollment::EnrollmentSpec;
use crate::pattern;
use crate::quantity::Quantity;

/// A customer who owns devices. The tenant's name is the object's name.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "ft",
    category = "flutecast",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "A customer who owns devices. The tenant's name is the object's name.",
    validation = Rule::new("size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')")
        .message("metadata.name is the tenant's name in subjects and addresses: at most 63 lower-case \
            letters, digits and '-', no '.'"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.displayName",
        description = "The name for people"),
    printcolumn(name = "Stream", type_ = "string", json_path = ".status.stream"),
    printcolumn(name = "Devices", type_ = "integer", json_path = ".status.devices"),
    printcolumn(name = "Ready", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
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
pub struct TenantSpec {
    /// The tenant's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// How long and where the tenant's messages are stored.
    #[serde(default)]
    pub retention: Retention,
    /// Existing topics of gateways and other systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub sources: Vec<SourceSpec>,
    /// Who may read the tenant. Left out: no one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// Which devices get a reply when they ask for their topics. Left out: those with a Device object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<EnrollmentSpec>,
    /// The limits of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// How long and where a tenant's messages are stored.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How long a message is stored. A client can resume at most this far back. The last value of a channel
    /// outlives it.
    #[serde(default = "Retention::default_max_age")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('8760h')")
            .message("maxAge must be 1s to 8760h")
    )]
    pub max_age: Duration,
    /// How many messages of each channel of a device are stored.
    #[serde(default = "Retention::default_max_messages_per_subject")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_messages_per_subject: u32,
    /// How many bytes are stored for the whole tenant. Left out: no limit for the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("quantity(self).compareTo(quantity('1Mi')) >= 0 && \
            quantity(self).compareTo(quantity('1024Ti')) <= 0")
            .message("maxBytes must be 1Mi to 1024Ti")
    )]
    pub max_bytes: Option<Quantity>,
    /// Where the messages are stored.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("storage can't be changed: NATS can't move a stream between disk and memory; delete the \
                Tenant and apply it anew")
            .reason(Reason::FieldValueForbidden)
    )]
    pub storage: Storage,
    /// The number of NATS servers that store the messages.
    #[serde(default = "Retention::default_replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u8,
    /// What happens to the messages when the Tenant is deleted. With `Keep` they stay for the next Tenant
    /// of the name; until it comes, nothing new of the sources is stored, so that another Tenant can have
    /// them.
    #[serde(default)]
    pub on_delete: OnDelete,
}

impl Retention {
    fn default_max_age() -> Duration {
        Duration::from_secs(3600)
    }

    fn default_max_messages_per_subject() -> u32 {
        1024
    }

    fn default_replicas() -> u8 {
        1
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Self::default_max_age(),
            max_messages_per_subject: Self::default_max_messages_per_subject(),
            max_bytes: None,
            storage: Storage::default(),
            replicas: Self::default_replicas(),
            on_delete: OnDelete::default(),
        }
    }
}

/// Where messages are stored.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// On disk; messages survive a restart of the broker.
    #[default]
    File,
    /// In memory; messages are lost when the broker restarts.
    Memory,
}

/// What happens to a tenant's messages when the Tenant is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnDelete {
    /// The stream is deleted with the Tenant.
    Delete,
    /// The stream stays; a later Tenant of the same name uses it again.
    #[default]
    Keep,
}

/// An existing topic whose messages belong to one channel of the tenant's devices.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.items) || has(self.iotId.pointer)")
        .message("items is only for iotId.pointer: with subjectToken the whole message belongs to one device")
        .field_path(".items")
        .reason(Reason::FieldValueForbidden),
    validation = Rule::new(
        "!has(self.iotId.subjectToken) || (self.iotId.subjectToken <= size(self.subject.split('.')) && \
         self.subject.split('.')[self.iotId.subjectToken - 1] == '*')"
    )
    .message("iotId.subjectToken must be the position, counted from 1, of a '*' in subject: 3 for \
        plant.gw1.*.power")
    .field_path(".iotId.subjectToken"),
    validation = Rule::new("!has(self.iotId.subjectToken) || !self.subject.endsWith('>')")
        .message("subject must not end in '>' with iotId.subjectToken: NATS can't put the rest of the \
            subject anywhere; write one '*' for each token")
        .field_path(".subject")
)]
pub struct SourceSpec {
    /// The name of the source within the tenant.
    #[schemars(length(min = 1, max = 63), regex(pattern = pattern::DNS_LABEL))]
    pub name: String,
    /// The NATS subject, possibly with wildcards.
    #[schemars(length(min = 1, max = 255), regex(pattern = pattern::SUBJECT))]
    #[x_kube(
        validation = Rule::new(
            "!self.startsWith('iot.') && !self.startsWith('live.') && !self.startsWith('$') && \
                !self.startsWith('_INBOX.') && \
             !self.startsWith('*')"
        )
        .message("subject must start with a token of its own: not '*', and not iot, live, _INBOX or '$', \
            which belong to Flutecast and NATS")
    )]
    pub subject: String,
    /// The channel to which the messages belong.
    #[schemars(length(min = 1, max = 32), regex(pattern = pattern::CHANNEL))]
    pub channel: String,
    /// Where a message holds the id of its device.
    pub iot_id: SourceId,
    /// A JSON pointer to an array of items in the message, each with the id of its device. Left out: the
    /// message is a single item. Only with `iotId.pointer`, which is then relative to the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub items: Option<String>,
}

/// Where a message of a source holds the id of its device. Exactly one of `subjectToken` and `pointer` is
/// set.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.subjectToken) != has(self.pointer)")
        .message("exactly one of subjectToken (the id stands in the subject) and pointer (it stands in the \
            payload) must be set"),
    validation = Rule::new("!has(self.kind) || self.kind != 'DeviceCode' || has(self.pointer)")
        .message("kind DeviceCode is only for pointer: NATS takes a subject token over as it is, so it must \
            be the iotId")
        .field_path(".kind")
        .reason(Reason::FieldValueForbidden)
)]
pub struct SourceId {
    /// The position of the subject token that is the id, counted from 1; `subject` must have a `*` there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub subject_token: Option<u32>,
    /// A JSON pointer to the id in the payload, or in the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub pointer: Option<String>,
    /// The kind of the id. Left out: IotId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IdKind")]
    pub kind: Option<IdKind>,
}

/// The kind of id by which a source names a device.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// The iotId.
    #[default]
    IotId,
    /// The device code. Only with `pointer`.
    DeviceCode,
}

/// Who may read a tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccessSpec {
    /// Whether clients without a token may read.
    #[serde(default)]
    pub anonymous: bool,
    /// The tokens with which clients may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensSpec>,
    /// The web origins whose pages may read, or `*` for all. Left out: only the pages of the data plane
    /// itself, and programs other than browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = pattern::ORIGIN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_origins: Vec<String>,
}

/// Static tokens from a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TokensSpec {
    /// The name of the Secret, in the same namespace. Each key is the name of a token, its value the token.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::DNS_SUBDOMAIN))]
    pub secret_name: String,
    /// The tokens that give access to some devices only. All other tokens give access to all devices of the
    /// tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub restricted: Vec<RestrictedToken>,
}

/// A token that gives access to some devices only.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestrictedToken {
    /// The name of the token: a key of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::SECRET_KEY))]
    pub name: String,
    /// The codes of the devices that may be read with the token.
    #[schemars(
        length(min = 1, max = 512),
        inner(length(min = 1, max = 64), regex(pattern = pattern::DEVICE_CODE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub devices: Vec<String>,
}

/// The limits of a tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// The most devices. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_devices: Option<u32>,
    /// The most clients at once on each data-plane pod. Left out: no limit for the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_clients: Option<u32>,
}

/// The observed state of a tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions Ready, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The name of the tenant's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The number of devices of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}
