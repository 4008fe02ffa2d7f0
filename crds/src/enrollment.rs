//! How devices enrol: what a Tenant says about those that ask for their topics.

// The derive of KubeSchema makes a private copy of each public struct, which the lint takes for the struct
// itself.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::DeviceChannel;
use crate::pattern;

/// Which devices are answered when they ask for their topics.
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
    /// Declared: only Devices that exist are answered. Automatic: a Device is created for a code that nobody
    /// has.
    #[serde(default)]
    pub policy: EnrollmentPolicy,
    /// What a Device that is created looks like. Needed with Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<DeviceTemplate>,
    /// Automatic: a regular expression (RE2) that a whole device code must match for a Device to be created.
    /// Left out: any code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub code_pattern: Option<String>,
}

/// What becomes of a device code that no Device has.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EnrollmentPolicy {
    /// It is refused.
    #[default]
    Declared,
    /// A Device is created for it.
    Automatic,
}

/// What a Device that is created looks like.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTemplate {
    /// Its labels. Clients can subscribe by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63, "pattern": pattern::LABEL_VALUE})
    )]
    pub labels: BTreeMap<String, String>,
    /// What it sends, as in a Device.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub channels: Vec<DeviceChannel>,
}
