//! The enrollment of devices, in the spec of a Tenant.

// KubeSchema derives a private copy of each public struct, which the lint reports.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::DeviceChannel;
use crate::pattern;

/// Which devices get a reply when they ask for their topics.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.policy != 'Automatic' || has(self.template)")
        .message("template must be set with policy Automatic: it says what a new Device is to send")
        .field_path(".template"),
    validation = Rule::new("self.policy == 'Automatic' || !has(self.codePattern)")
        .message("codePattern is only for policy Automatic: a Device that exists is always answered")
        .field_path(".codePattern")
        .reason(Reason::FieldValueForbidden)
)]
pub struct EnrollmentSpec {
    /// Declared: only devices with a Device object get their topics. Automatic: a Device is created for an
    /// unknown code.
    #[serde(default)]
    pub policy: EnrollmentPolicy,
    /// The template of created Devices. Required with Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<DeviceTemplate>,
    /// Automatic: a regular expression (RE2) that must match the whole device code for a Device to be
    /// created. Left out: any code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub code_pattern: Option<String>,
}

/// How a request with an unknown device code is handled.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EnrollmentPolicy {
    /// The request is refused.
    #[default]
    Declared,
    /// A Device is created.
    Automatic,
}

/// The template of created Devices.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTemplate {
    /// The labels of the Device. Clients can select devices by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63,
            "pattern": pattern::LABEL_VALUE})
    )]
    pub labels: BTreeMap<String, String>,
    /// The channels of the Device, as in its spec.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub channels: Vec<DeviceChannel>,
}
