//! `Tenant`: a customer who owns devices, where their messages come from, and who may read them.

// The derive of KubeSchema makes a private copy of each public struct, which the first lint takes for the
// struct itself; each printer column has a type of its own, which the second takes for a repetition.
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
        .message("metadata.name is the tenant's name in subjects and addresses: at most 63 lower-case letters, digits and '-', no '.'"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.displayName", description = "The name for people"),
    printcolumn(name = "Stream", type_ = "string", json_path = ".status.stream"),
    printcolumn(name = "Devices", type_ = "integer", json_path = ".status.devices"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime",
        description = "For how long it has been ready, or has not"
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
    /// How long the tenant's messages are kept, and where.
    #[serde(default)]
    pub retention: Retention,
    /// Topics that exist already: gateways, other systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub sources: Vec<SourceSpec>,
    /// Who may read. Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// Which devices are answered when they ask for their topics. Left out: those that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<EnrollmentSpec>,
    /// How much the tenant may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// How long a tenant's messages are kept, and where.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How long a message is kept. It bounds how far back a client that was away can resume.
    #[serde(default = "Retention::default_max_age")]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('8760h')")
            .message("maxAge must be 1s to 8760h")
    )]
    pub max_age: Duration,
    /// How many messages of one channel of one device are kept.
    #[serde(default = "Retention::default_max_messages_per_subject")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_messages_per_subject: u32,
    /// How many bytes are kept for the whole tenant. Left out: no bound of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).compareTo(quantity('1024Ti')) <= 0")
            .message("maxBytes must be 1Mi to 1024Ti")
    )]
    pub max_bytes: Option<Quantity>,
    /// Where they are kept.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("storage can't be changed: NATS can't move a stream between disk and memory; delete the Tenant and apply it anew")
            .reason(Reason::FieldValueForbidden)
    )]
    pub storage: Storage,
    /// On how many NATS servers.
    #[serde(default = "Retention::default_replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u8,
    /// What happens to the messages when the Tenant is deleted.
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

/// Where messages are kept.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Storage {
    /// On disk: they outlive a restart of the broker.
    #[default]
    File,
    /// In memory: they don't.
    Memory,
}

/// What happens to a tenant's messages when the Tenant is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnDelete {
    /// The stream goes with the Tenant.
    Delete,
    /// The stream stays; a Tenant that comes back under the same name finds it again.
    #[default]
    Keep,
}

/// A topic that exists already and whose messages belong to one channel of the tenant's devices.
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
    .message("iotId.subjectToken must be the position, counted from 1, of a '*' in subject: 3 for plant.gw1.*.power")
    .field_path(".iotId.subjectToken"),
    validation = Rule::new("!has(self.iotId.subjectToken) || !self.subject.endsWith('>')")
        .message("subject must not end in '>' with iotId.subjectToken: NATS can't put the rest of the subject anywhere; write one '*' for each token")
        .field_path(".subject")
)]
pub struct SourceSpec {
    /// The source's name within the tenant.
    #[schemars(length(min = 1, max = 63), regex(pattern = pattern::DNS_LABEL))]
    pub name: String,
    /// The NATS subject, possibly with wildcards.
    #[schemars(length(min = 1, max = 255), regex(pattern = pattern::SUBJECT))]
    #[x_kube(
        validation = Rule::new(
            "!self.startsWith('iot.') && !self.startsWith('live.') && !self.startsWith('$') && !self.startsWith('_INBOX.') && \
             !self.startsWith('*')"
        )
        .message("subject must start with a token of its own: not '*', and not iot, live, _INBOX or '$', which belong to Flutecast and NATS")
    )]
    pub subject: String,
    /// The channel that its messages belong to.
    #[schemars(length(min = 1, max = 32), regex(pattern = pattern::CHANNEL))]
    pub channel: String,
    /// Where a message names its device.
    pub iot_id: SourceId,
    /// A JSON pointer to an array of items in the message, each of which belongs to a device of its own. Left
    /// out: the message is one item. Only with `iotId.pointer`, which then points into the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub items: Option<String>,
}

/// Where a message of a source names its device. Exactly one of `subjectToken` and `pointer` is set.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.subjectToken) != has(self.pointer)")
        .message("exactly one of subjectToken (the id stands in the subject) and pointer (it stands in the payload) must be set"),
    validation = Rule::new("!has(self.kind) || self.kind != 'DeviceCode' || has(self.pointer)")
        .message("kind DeviceCode is only for pointer: NATS takes a subject token over as it is, so it must be the iotId")
        .field_path(".kind")
        .reason(Reason::FieldValueForbidden)
)]
pub struct SourceId {
    /// The token of the subject that is the id, counted from 1; a `*` must stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub subject_token: Option<u32>,
    /// A JSON pointer to the id in the payload (or in the item).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), regex(pattern = pattern::JSON_POINTER))]
    pub pointer: Option<String>,
    /// What the id is. Left out: IotId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IdKind")]
    pub kind: Option<IdKind>,
}

/// How a source names a device.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// By its iotId.
    #[default]
    IotId,
    /// By its device code. Only with `pointer`.
    DeviceCode,
}

/// Who may read a tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccessSpec {
    /// Everybody may read.
    #[serde(default)]
    pub anonymous: bool,
    /// Whoever has one of these tokens may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensSpec>,
    /// The web origins whose pages may read, or `*` for all. Left out: the pages that the data plane serves
    /// itself, and programs that are no browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = pattern::ORIGIN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_origins: Vec<String>,
}

/// Static tokens, kept in a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TokensSpec {
    /// The name of the Secret, in the same namespace. Each of its keys is a token's name, the value is the
    /// token.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::DNS_SUBDOMAIN))]
    pub secret_name: String,
    /// The tokens that open only some devices. A token that isn't here opens all of the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub restricted: Vec<RestrictedToken>,
}

/// A token that opens only some devices.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestrictedToken {
    /// The token's name: a key of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = pattern::SECRET_KEY))]
    pub name: String,
    /// The codes of the devices that it opens.
    #[schemars(
        length(min = 1, max = 512),
        inner(length(min = 1, max = 64), regex(pattern = pattern::DEVICE_CODE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub devices: Vec<String>,
}

/// How much a tenant may use.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// How many devices. Left out: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_devices: Option<u32>,
    /// How many clients at once, on each data-plane pod. Left out: no bound of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_clients: Option<u32>,
}

/// What the operator knows of a tenant.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The name of the tenant's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// How many devices the tenant has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}
