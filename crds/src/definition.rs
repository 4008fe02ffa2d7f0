//! The three CustomResourceDefinitions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{Device, PushFormat, Tenant};

/// The formats of numbers and strings that the API server knows. It warns about all others.
const KNOWN_FORMATS: [&str; 7] = ["int32", "int64", "float", "double", "date-time", "date", "byte"];

/// A kind of the API.
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
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Device, Self::PushFormat];

    /// Returns the kind as in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Device => "Device",
            Self::PushFormat => "PushFormat",
        }
    }

    /// Returns the kind with this name; `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns the CustomResourceDefinition. It differs from the derived one in three ways: it has no
    /// `nullable`, since `has()` is true for a field that is `null` and each rule would have to handle that;
    /// it has no formats that the API server doesn't know, since it warns about each; and a description is
    /// one line.
    ///
    /// # Errors
    /// Returns an error of the JSON serializer, which doesn't occur for a CustomResourceDefinition.
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
                let mut value = serde_json::to_value(&*schema)?;
                simplify(&mut value);
                *schema = serde_json::from_value(value)?;
            }
        }
        Ok(definition)
    }

    /// Returns the schema, `openAPIV3Schema` of the definition.
    ///
    /// # Errors
    /// Returns the same errors as [`CrdKind::definition`].
    pub fn schema(self) -> Result<Value, serde_json::Error> {
        let definition = self.definition()?;
        let version = definition.spec.versions.into_iter().next();
        serde_json::to_value(
            version.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema),
        )
    }

    /// Returns the name of the file that holds the definition.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Tenant => "tenants.yaml",
            Self::Device => "devices.yaml",
            Self::PushFormat => "pushformats.yaml",
        }
    }

    /// Returns the definition as a YAML document; deterministic, byte for byte.
    ///
    /// # Errors
    /// Returns the same errors as [`CrdKind::definition`].
    pub fn yaml(self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let document = serde_json::to_value(self.definition()?)?;
        Ok(format!(
            "# Written by `cargo run -p flutecast-crds --bin crdgen`; change crds/src instead.\n{}",
            serde_yaml::to_string(&document)?
        ))
    }
}

/// Simplifies a schema recursively. The map `properties` itself is not a schema, as its keys are names.
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
        properties.values_mut().for_each(simplify);
    }
}
