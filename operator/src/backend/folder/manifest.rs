//! One document of a manifest file, as an object of one of the kinds.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use flutecast_crds::{DeviceSpec, PushFormatSpec, TenantSpec, definition};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::documents::{self, Part};
use super::located::{Located, join};
use super::schema::KindSchema;
use crate::finding::{Finding, Reason};
use crate::kubernetes_names::{is_dns_subdomain, is_label_key, is_label_value};
use crate::object::{DEFAULT_NAMESPACE, Kind, Meta, Object, ObjectRef, SecretData};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Manifest {
    Tenant(Arc<Object<TenantSpec>>),
    Device(Arc<Object<DeviceSpec>>),
    PushFormat(Arc<Object<PushFormatSpec>>),
    Secret(Arc<Object<SecretData>>),
}

impl Manifest {
    fn meta(&self) -> (Kind, &Meta) {
        match self {
            Self::Tenant(object) => (Kind::Tenant, &object.meta),
            Self::Device(object) => (Kind::Device, &object.meta),
            Self::PushFormat(object) => (Kind::PushFormat, &object.meta),
            Self::Secret(object) => (Kind::Secret, &object.meta),
        }
    }

    pub(crate) fn object_ref(&self) -> ObjectRef {
        let (kind, meta) = self.meta();
        meta.object_ref(kind)
    }

    pub(crate) fn with_created(&self, created: i64) -> Self {
        fn aged<S: Clone>(object: &Arc<Object<S>>, created: i64) -> Arc<Object<S>> {
            if object.meta.created == created {
                return object.clone();
            }
            let mut object = (**object).clone();
            Arc::make_mut(&mut object.meta).created = created;
            Arc::new(object)
        }
        match self {
            Self::Tenant(object) => Self::Tenant(aged(object, created)),
            Self::Device(object) => Self::Device(aged(object, created)),
            Self::PushFormat(object) => Self::PushFormat(aged(object, created)),
            Self::Secret(object) => Self::Secret(aged(object, created)),
        }
    }
}

/// One document, or one item of a List.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Good {
        manifest: Manifest,
        /// Its place in the files, in words.
        place: String,
    },
    /// An object of another kind.
    Ignored { kind: String },
    Broken {
        /// The object that it should be; `None` if it has no kind and name.
        object: Option<ObjectRef>,
        findings: Vec<Finding>,
    },
}

/// Reads a file. `path` is for messages.
pub(crate) fn read(path: &str, text: &str) -> Vec<Entry> {
    documents::split(text).iter().flat_map(|part| read_part(path, part)).collect()
}

fn read_part(path: &str, part: &Part<'_>) -> Vec<Entry> {
    let place = |line: u64| format!("{path}:{} (document {})", part.first_line + line - 1, part.number);
    match Located::parse(part.text) {
        Err((line, message)) => {
            let finding =
                Finding::new(Reason::InvalidYaml, "", format!("{}: {message}", place(line.unwrap_or(1))));
            vec![Entry::Broken { object: None, findings: vec![finding] }]
        }
        Ok(document) if document.value["kind"] == "List" => {
            let items = document.value["items"].as_array().cloned().unwrap_or_default();
            let read = |(index, item)| read_object(item, &format!("items[{index}]"), &document, &place);
            items.iter().enumerate().map(read).collect()
        }
        Ok(document) => vec![read_object(&document.value, "", &document, &place)],
    }
}

/// Reads the object at `at` in `document`.
fn read_object(object: &Value, at: &str, document: &Located, place: &dyn Fn(u64) -> String) -> Entry {
    let in_document = |field: &str| if at.is_empty() { field.to_owned() } else { join(at, field) };
    let broken = |object: Option<ObjectRef>, findings: Vec<Finding>| {
        let findings = findings
            .into_iter()
            .map(|Finding { reason, field, message }| {
                let line = document.line(&in_document(&field));
                Finding { reason, message: format!("{message} (at {})", place(line)), field }
            })
            .collect();
        Entry::Broken { object, findings }
    };
    let kind = match kind_of(object) {
        Ok(Some(kind)) => kind,
        Ok(None) => return Entry::Ignored { kind: object["kind"].as_str().unwrap_or_default().to_owned() },
        Err(finding) => return broken(None, vec![finding]),
    };
    let (namespace, name) = match read_name(&object["metadata"]) {
        Ok(names) => names,
        Err(finding) => return broken(None, vec![finding]),
    };
    let object_ref = ObjectRef::new(kind, namespace, name);
    let labels = match read_labels(&object["metadata"]["labels"]) {
        Ok(labels) => labels,
        Err(finding) => return broken(Some(object_ref), vec![finding]),
    };
    let meta = Meta {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: None,
        created: 0,
        labels: labels.into(),
    };
    match read_kind(kind, meta, object) {
        Ok(manifest) => Entry::Good { manifest, place: place(document.line(&in_document("kind"))) },
        Err(findings) => broken(Some(object_ref), findings),
    }
}

/// Returns the kind; `None` if it is another one than those that are read.
fn kind_of(object: &Value) -> Result<Option<Kind>, Finding> {
    let Some(api_version) = object["apiVersion"].as_str() else {
        return Err(invalid(
            "apiVersion",
            format!("is missing; write apiVersion: {}", flutecast_crds::API_VERSION),
        ));
    };
    let Some(kind) = object["kind"].as_str() else {
        return Err(invalid(
            "kind",
            "is missing; write kind: Tenant, Device, PushFormat or Secret".to_owned(),
        ));
    };
    if api_version == "v1" && kind == "Secret" {
        return Ok(Some(Kind::Secret));
    }
    if api_version.split('/').next() != Some(flutecast_crds::GROUP) {
        return Ok(None);
    }
    if api_version != flutecast_crds::API_VERSION {
        let message = format!("{api_version:?} is unknown; write {}", flutecast_crds::API_VERSION);
        return Err(invalid("apiVersion", message));
    }
    match kind {
        "Tenant" => Ok(Some(Kind::Tenant)),
        "Device" => Ok(Some(Kind::Device)),
        "PushFormat" => Ok(Some(Kind::PushFormat)),
        other => {
            Err(invalid("kind", format!("{other:?} is unknown; there are Tenant, Device and PushFormat")))
        }
    }
}

fn invalid(field: &str, message: String) -> Finding {
    Finding::new(Reason::InvalidObject, field, message)
}

fn read_name(metadata: &Value) -> Result<(&str, &str), Finding> {
    let name = metadata["name"]
        .as_str()
        .ok_or_else(|| invalid("metadata.name", "is missing, or not a string".to_owned()))?;
    if !is_dns_subdomain(name) {
        let message =
            format!("{name:?} is not a name; it needs lower-case letters, digits, '-' and '.', at most 253");
        return Err(invalid("metadata.name", message));
    }
    match &metadata["namespace"] {
        Value::Null => Ok((DEFAULT_NAMESPACE, name)),
        Value::String(namespace) if is_dns_subdomain(namespace) && !namespace.contains('.') => {
            Ok((namespace, name))
        }
        other => Err(invalid("metadata.namespace", format!("{other} is not the name of a namespace"))),
    }
}

fn read_labels(labels: &Value) -> Result<BTreeMap<String, String>, Finding> {
    let entries = match labels {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(entries) => entries,
        other => {
            return Err(invalid("metadata.labels", format!("{other} is not a set of labels (name: value)")));
        }
    };
    let label = |(key, value): (&String, &Value)| {
        let field = join("metadata.labels", key);
        let Some(text) = value.as_str() else {
            return Err(invalid(&field, format!("{value} is not a string; put it in quotes")));
        };
        if !is_label_key(key) || !is_label_value(text) {
            return Err(invalid(&field, format!("{key}={text} is not a label as Kubernetes takes it")));
        }
        Ok((key.clone(), text.to_owned()))
    };
    entries.iter().map(label).collect()
}

/// The schemas of the kinds, from the API types.
struct Schemas {
    tenant: KindSchema,
    device: KindSchema,
    push_format: KindSchema,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| Schemas {
    tenant: schema_of(definition::CrdKind::Tenant),
    device: schema_of(definition::CrdKind::Device),
    push_format: schema_of(definition::CrdKind::PushFormat),
});

fn schema_of(kind: definition::CrdKind) -> KindSchema {
    // A test checks that all of them can be compiled.
    KindSchema::new(kind.schema().unwrap_or_default())
}

fn read_kind(kind: Kind, meta: Meta, object: &Value) -> Result<Manifest, Vec<Finding>> {
    match kind {
        Kind::Tenant => Ok(Manifest::Tenant(read_spec(&SCHEMAS.tenant, meta, object)?)),
        Kind::Device => Ok(Manifest::Device(read_spec(&SCHEMAS.device, meta, object)?)),
        Kind::PushFormat => Ok(Manifest::PushFormat(read_spec(&SCHEMAS.push_format, meta, object)?)),
        Kind::Secret => match read_secret(object) {
            Ok(spec) => Ok(Manifest::Secret(Arc::new(Object { meta: meta.into(), spec }))),
            Err(finding) => Err(vec![finding]),
        },
        // No document has this kind.
        Kind::File => Err(vec![Finding::new(Reason::InvalidObject, "kind", "a file is not an object")]),
    }
}

fn read_spec<S: DeserializeOwned>(
    schema: &KindSchema,
    meta: Meta,
    object: &Value,
) -> Result<Arc<Object<S>>, Vec<Finding>> {
    let mut findings = unknown_fields(object, &["apiVersion", "kind", "metadata", "spec", "status"]);
    findings.extend(schema.check(object));
    if !findings.is_empty() {
        return Err(findings);
    }
    match serde_json::from_value(object["spec"].clone()) {
        Ok(spec) => Ok(Arc::new(Object { meta: meta.into(), spec })),
        Err(error) => Err(vec![Finding::new(Reason::InvalidObject, "spec", error.to_string())]),
    }
}

/// Returns the values of a Secret, from `data` (base64) and `stringData`, which takes precedence. No message
/// shows a value.
fn read_secret(object: &Value) -> Result<SecretData, Finding> {
    let invalid = |field: &str, key: &str, message: &str| {
        Finding::new(Reason::InvalidObject, join(field, key), message)
    };
    if let Some(finding) =
        unknown_fields(object, &["apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"])
            .into_iter()
            .next()
    {
        return Err(finding);
    }
    let mut data = BTreeMap::new();
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().ok_or_else(|| invalid("data", key, "is not a string"))?;
        let bytes = data_encoding::BASE64
            .decode(text.as_bytes())
            .map_err(|_| invalid("data", key, "is not base64; write plain text under stringData"))?;
        data.insert(key.clone(), bytes);
    }
    for (key, value) in object["stringData"].as_object().into_iter().flatten() {
        let text =
            value.as_str().ok_or_else(|| invalid("stringData", key, "is not a string; put it in quotes"))?;
        data.insert(key.clone(), text.as_bytes().to_vec());
    }
    Ok(SecretData(data))
}

fn unknown_fields(object: &Value, known: &[&str]) -> Vec<Finding> {
    let keys = object.as_object().into_iter().flat_map(|entries| entries.keys());
    keys.filter(|key| !known.contains(&key.as_str()))
        .map(|key| {
            Finding::new(
                Reason::InvalidObject,
                key.clone(),
                format!("is not a field; there are {}", known.join(", ")),
            )
        })
        .collect()
}
