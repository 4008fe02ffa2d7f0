//! `Tenant`: a customer who owns devices, where their messages come from, and who may read them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::quantity::Quantity;

/// A customer who owns devices. The tenant's name is the object's name.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "flutecast.io",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "ft",
    category = "flutecast",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// The tenant's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// How long the tenant's messages are kept, and where.
    #[serde(default)]
    pub retention: Retention,
    /// Topics that exist already: gateways, other systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Who may read. Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How much the tenant may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// How long a tenant's messages are kept, and where.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// How long a message is kept. It bounds how far back a client that was away can resume.
    #[serde(default = "Retention::default_max_age")]
    pub max_age: Duration,
    /// How many messages of one channel of one device are kept.
    #[serde(default = "Retention::default_max_messages_per_subject")]
    pub max_messages_per_subject: u32,
    /// How many bytes are kept for the whole tenant. Left out: no bound of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Quantity>,
    /// Where they are kept.
    #[serde(default)]
    pub storage: Storage,
    /// On how many NATS servers.
    #[serde(default = "Retention::default_replicas")]
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
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The source's name within the tenant.
    pub name: String,
    /// The NATS subject, possibly with wildcards.
    pub subject: String,
    /// The channel that its messages belong to.
    pub channel: String,
    /// Where a message names its device.
    pub iot_id: SourceId,
    /// A JSON pointer to an array of items in the message, each of which belongs to a device of its own. Left out: the message is
    /// one item. Only with `iotId.pointer`, which then points into the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,
}

/// Where a message of a source names its device. Exactly one of `subjectToken` and `pointer` is set.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceId {
    /// The token of the subject that is the id, counted from 1; a `*` must stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token: Option<u32>,
    /// A JSON pointer to the id in the payload (or in the item).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What the id is. Left out: IotId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
pub struct Access {
    /// Everybody may read.
    #[serde(default)]
    pub anonymous: bool,
    /// Whoever has one of these tokens may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// The web origins whose pages may read, or `*` for all. Left out: the pages that the data plane serves itself, and programs
    /// that are no browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
}

/// Static tokens, kept in a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// The name of the Secret, in the same namespace. Each of its keys is a token's name, the value is the token.
    pub secret_name: String,
    /// The tokens that open only some devices. A token that isn't here opens all of the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restricted: Vec<RestrictedToken>,
}

/// A token that opens only some devices.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestrictedToken {
    /// The token's name: a key of the Secret.
    pub name: String,
    /// The codes of the devices that it opens.
    pub devices: Vec<String>,
}

/// How much a tenant may use.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// How many devices. Left out: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_devices: Option<u32>,
    /// How many clients at once, on each data-plane pod. Left out: no bound of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub conditions: Vec<Condition>,
    /// The name of the tenant's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// How many devices the tenant has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}
