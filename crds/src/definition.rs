//! The three CustomResourceDefinitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Device, PushFormat, Tenant};

/// The formats of numbers and strings that the API server knows; it warns about every other one.
const KNOWN_FORMATS: [&str; 7] = ["int32", "int64", "float", "double", "date-time", "date", "byte"];

/// One kind of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrdKind {
    /// [`Tenant`].
    Tenant,
    /// [`Device`].
    Device,
    /// [`PushFormat`].
    PushFormat,
}

impl CrdKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Device, Self::PushFormat];

    /// The kind as it stands in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Device => "Device",
            Self::PushFormat => "PushFormat",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Its CustomResourceDefinition. What the derive makes is changed in three things. `nullable` is left
    /// out: a field that is `null` would be one that `has()` finds, and each rule would have to think of it.
    /// Number formats that the API server doesn't know are left out: it warns of each. A description is one
    /// line.
    ///
    /// # Errors
    /// None in practice: a CustomResourceDefinition can be written as JSON and read back.
    pub fn definition(self) -> Result<CustomResourceDefinition, serde_json::Error> {
        let mut definition = match self {
            Self::Tenant => Tenant::crd(),
            Self::Device => Device::crd(),
            Self::PushFormat => PushFormat::crd(),
        };
        for version in &mut definition.spec.versions {
            if let Some(validation) = &mut version.schema
                && let Some(schema) = &mut validation.open_api_v3_schema
            {
                *schema = simplified(schema)?;
            }
        }
        Ok(definition)
    }

    /// Its schema, `openAPIV3Schema` of the definition.
    ///
    /// # Errors
    /// See [`CrdKind::definition`].
    pub fn schema(self) -> Result<Value, serde_json::Error> {
        let definition = self.definition()?;
        let version = definition.spec.versions.into_iter().next();
        serde_json::to_value(
            version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema),
        )
    }

    /// The name of the file that its definition is written to.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Tenant => "tenants.yaml",
            Self::Device => "devices.yaml",
            Self::PushFormat => "pushformats.yaml",
        }
    }

    /// Its definition as a YAML document, the same bytes each time.
    ///
    /// # Errors
    /// See [`CrdKind::definition`].
    pub fn yaml(self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let document = serde_json::to_value(self.definition()?)?;
        Ok(format!(
            "# Written by `cargo run -p flutecast-crds --bin crdgen`; change crds/src instead.\n{}",
            to_yaml(&document)?
        ))
    }
}

fn to_yaml(document: &impl Serialize) -> Result<String, serde_yaml::SerializeError> {
    serde_yaml::to_string(document)
}

fn simplified(schema: &JSONSchemaProps) -> Result<JSONSchemaProps, serde_json::Error> {
    let mut value = serde_json::to_value(schema)?;
    simplify(&mut value);
    serde_json::from_value(value)
}

/// Goes through a schema; property names are no keywords, so the map of properties is stepped over.
fn simplify(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    keywords.remove("nullable");
    if let Some(Value::String(description)) = keywords.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if keywords.get("format").and_then(Value::as_str).is_some_and(|format| !KNOWN_FORMATS.contains(&format)) {
        keywords.remove("format");
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = keywords.get_mut(keyword) {
            simplify(inner);
        }
    }
    if let Some(properties) = keywords.get_mut("properties").and_then(Value::as_object_mut) {
        each(properties, simplify);
    }
}

fn each(properties: &mut Map<String, Value>, change: fn(&mut Value)) {
    properties.values_mut().for_each(change);
}
