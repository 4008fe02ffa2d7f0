//! The objects as they are stored, and the fingerprint of each.

use std::collections::BTreeMap;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::object::{
    ACCESS_KEY, ACCESS_SECRET, IGNORE_UPDATES, MANAGED_BY, MAPPING_KEY, shard_name,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};

/// Selects the ConfigMaps of the mapping.
pub(crate) const SHARD_SELECTOR: &str =
    "app.kubernetes.io/managed-by=flutecast,flutecast.io/tenant,flutecast.io/shard";

const TENANT: &str = "flutecast.io/tenant";
const SHARD: &str = "flutecast.io/shard";
const REVISION: &str = "flutecast.io/revision";

/// A digest over all parts of an object that the operator writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

pub(super) fn name(document: &ShardDocument) -> String {
    shard_name(&document.tenant, document.shard)
}

pub(super) fn config_map(document: &ShardDocument, namespace: &str) -> Result<ConfigMap, String> {
    let text = document.to_yaml().map_err(|error| error.to_string())?;
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(document)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels(document)),
            annotations: Some(annotations([(REVISION, document.revision.as_str()), IGNORE_UPDATES])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(MAPPING_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    })
}

/// Returns the text of a ConfigMap's document without its devices, which come last and take nearly all of it.
pub(super) fn text_without_devices(map: &ConfigMap) -> Option<&str> {
    let text = map.data.as_ref()?.get(MAPPING_KEY)?;
    Some(text.split_once("\ndevices:\n").map_or(text, |(head, _)| head))
}

fn labels(document: &ShardDocument) -> BTreeMap<String, String> {
    [
        (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
        (TENANT, document.tenant.to_string()),
        (SHARD, document.shard.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn annotations<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(super) fn secret(document: &AccessDocument, namespace: &str) -> Result<Secret, String> {
    let text = document.to_yaml().map_err(|error| error.to_string())?;
    let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(ACCESS_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations([IGNORE_UPDATES])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ACCESS_KEY.to_owned(), ByteString(text.into_bytes()))])),
        ..Secret::default()
    })
}

/// Returns the fingerprint of the ConfigMap of a document; `None` if there can't be one.
pub(super) fn fingerprint_of_shard(document: &ShardDocument) -> Option<Fingerprint> {
    config_map(document, "").ok().map(|map| fingerprint_of_map(&map))
}

pub(super) fn fingerprint_of_map(map: &ConfigMap) -> Fingerprint {
    let label = |key: &str| map.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let revision = map.metadata.annotations.as_ref().and_then(|all| all.get(REVISION)).map(String::as_str);
    let text = map.data.as_ref().and_then(|data| data.get(MAPPING_KEY)).map(String::as_str);
    digest(&[label(MANAGED_BY.0), label(TENANT), label(SHARD), revision, text])
}

pub(super) fn fingerprint_of_secret(secret: &Secret) -> Fingerprint {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    let text = secret.data.as_ref().and_then(|data| data.get(ACCESS_KEY));
    let text = text.and_then(|text| std::str::from_utf8(&text.0).ok());
    digest(&[label.map(String::as_str), text])
}

/// Returns the fingerprint of the access Secret with this text.
pub(super) fn fingerprint_of_text(text: &str) -> Fingerprint {
    digest(&[Some(MANAGED_BY.1), Some(text)])
}

fn digest(parts: &[Option<&str>]) -> Fingerprint {
    let mut digest = Sha256::new();
    for part in parts {
        // Lengths keep parts apart, and a missing part from an empty one.
        digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        digest.update(part.unwrap_or_default());
    }
    Fingerprint(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use flutecast_contract::document::API_VERSION;
    use flutecast_contract::name::TenantName;
    use flutecast_contract::shard::ACCESS_FILE;

    use super::*;

    fn document() -> ShardDocument {
        ShardDocument {
            api_version: API_VERSION.to_owned(),
            tenant: TenantName::new("demo").unwrap(),
            shard: 3,
            shards: 4,
            revision: "r".to_owned(),
            settings: None,
            formats: BTreeMap::new(),
            devices: BTreeMap::new(),
        }
    }

    #[test]
    fn names_are_those_of_the_files() {
        assert_eq!(name(&document()), "flutecast-demo-3");
        assert_eq!(ACCESS_FILE, format!("{ACCESS_SECRET}.yaml"));
    }

    #[test]
    fn the_formats_are_before_the_devices() {
        use flutecast_contract::name::{DeviceCode, FormatName, IotId};
        let format = r#"{"codec": "JSON", "when": "values.n > 0 || 'a\ndevices:\n' == ''", "fields": []}"#;
        let format = serde_json::from_str(format).unwrap();
        let mut document = document();
        document.formats.insert(FormatName::new("on-off").unwrap(), format);
        let device = flutecast_contract::document::DeviceDocument {
            code: DeviceCode::new("C-1").unwrap(),
            name: "d1".to_owned(),
            labels: Default::default(),
            #[cfg(feature = "next-version")]
            location: None,
            channels: Default::default(),
        };
        document.devices.insert(IotId::new("abc").unwrap(), device.into());
        let map = config_map(&document, "anywhere").unwrap();
        let read = ShardDocument::from_yaml(text_without_devices(&map).unwrap()).unwrap();
        document.devices.clear();
        assert_eq!(read, document);
    }

    #[test]
    fn a_fingerprint_covers_exactly_what_the_operator_writes() {
        let wanted = fingerprint_of_shard(&document()).unwrap();
        let map = config_map(&document(), "anywhere").unwrap();
        assert_eq!(fingerprint_of_map(&map), wanted);
        let changed = |change: fn(&mut ConfigMap)| {
            let mut map = map.clone();
            change(&mut map);
            fingerprint_of_map(&map)
        };
        assert_eq!(changed(|map| map.metadata.resource_version = Some("7".to_owned())), wanted);
        assert_eq!(
            changed(|map| {
                map.metadata.labels.as_mut().unwrap().insert("team".to_owned(), "blue".to_owned());
            }),
            wanted
        );
        for change in [
            |map: &mut ConfigMap| map.data = None,
            |map: &mut ConfigMap| map.data.as_mut().unwrap().get_mut(MAPPING_KEY).unwrap().push(' '),
            |map: &mut ConfigMap| {
                map.metadata.labels.as_mut().unwrap().insert(SHARD.to_owned(), "4".to_owned());
            },
            |map: &mut ConfigMap| map.metadata.annotations = None,
        ] {
            assert_ne!(changed(change), wanted);
        }
    }

    #[test]
    fn the_secret_has_the_fingerprint_of_its_text() {
        let document = AccessDocument { api_version: API_VERSION.to_owned(), tenants: BTreeMap::new() };
        let secret = secret(&document, "anywhere").unwrap();
        assert_eq!(fingerprint_of_secret(&secret), fingerprint_of_text(&document.to_yaml().unwrap()));
        assert_ne!(
            fingerprint_of_secret(&Secret::default()),
            fingerprint_of_text(&document.to_yaml().unwrap())
        );
    }
}
