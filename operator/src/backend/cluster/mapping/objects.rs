//! The objects as they are stored, and a print of each that tells whether two are the same.

use std::collections::BTreeMap;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::object::{ACCESS_KEY, ACCESS_SECRET, MANAGED_BY, MAPPING_KEY, shard_name};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};

/// What finds the ConfigMaps of the mapping.
pub(crate) const SHARD_SELECTOR: &str =
    "app.kubernetes.io/managed-by=flutecast,flutecast.io/tenant,flutecast.io/shard";

const TENANT: &str = "flutecast.io/tenant";
const SHARD: &str = "flutecast.io/shard";
const REVISION: &str = "flutecast.io/revision";

/// What tells whether an object holds what it should: a digest over all that is ours of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print([u8; 32]);

/// The name of the ConfigMap that holds a document.
pub(super) fn name(document: &ShardDocument) -> String {
    shard_name(&document.tenant, document.shard)
}

/// The ConfigMap that holds a document.
pub(super) fn config_map(document: &ShardDocument, namespace: &str) -> Result<ConfigMap, String> {
    let text = document.to_yaml().map_err(|error| error.to_string())?;
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(document)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels(document)),
            annotations: Some(BTreeMap::from([(REVISION.to_owned(), document.revision.clone())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(MAPPING_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    })
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

/// The Secret that holds the access document.
pub(super) fn secret(document: &AccessDocument, namespace: &str) -> Result<Secret, String> {
    let text = document.to_yaml().map_err(|error| error.to_string())?;
    let labels = BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())]);
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(ACCESS_SECRET.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ACCESS_KEY.to_owned(), ByteString(text.into_bytes()))])),
        ..Secret::default()
    })
}

/// The print that the ConfigMap of a document has; none if there can't be one.
pub(super) fn print_of_shard(document: &ShardDocument) -> Option<Print> {
    config_map(document, "").ok().map(|map| print_of_map(&map))
}

/// The print of a ConfigMap that exists.
pub(super) fn print_of_map(map: &ConfigMap) -> Print {
    let label = |key: &str| map.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let revision = map.metadata.annotations.as_ref().and_then(|all| all.get(REVISION)).map(String::as_str);
    let text = map.data.as_ref().and_then(|data| data.get(MAPPING_KEY)).map(String::as_str);
    digest(&[label(MANAGED_BY.0), label(TENANT), label(SHARD), revision, text])
}

/// The print of the access Secret that exists.
pub(super) fn print_of_secret(secret: &Secret) -> Print {
    let label = secret.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    let text = secret.data.as_ref().and_then(|data| data.get(ACCESS_KEY));
    let text = text.and_then(|text| std::str::from_utf8(&text.0).ok());
    digest(&[label.map(String::as_str), text])
}

/// The print that the access Secret with this text has.
pub(super) fn print_of_text(text: &str) -> Print {
    digest(&[Some(MANAGED_BY.1), Some(text)])
}

fn digest(parts: &[Option<&str>]) -> Print {
    let mut digest = Sha256::new();
    for part in parts {
        // Lengths keep parts apart; what isn't there is no empty text.
        digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        digest.update(part.unwrap_or_default());
    }
    Print(digest.finalize().into())
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
    fn a_print_covers_all_that_is_ours_and_nothing_else() {
        let wanted = print_of_shard(&document()).unwrap();
        let map = config_map(&document(), "anywhere").unwrap();
        assert_eq!(print_of_map(&map), wanted);
        let changed = |change: fn(&mut ConfigMap)| {
            let mut map = map.clone();
            change(&mut map);
            print_of_map(&map)
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
    fn the_secret_has_the_print_of_its_text() {
        let document = AccessDocument { api_version: API_VERSION.to_owned(), tenants: BTreeMap::new() };
        let secret = secret(&document, "anywhere").unwrap();
        assert_eq!(print_of_secret(&secret), print_of_text(&document.to_yaml().unwrap()));
        assert_ne!(print_of_secret(&Secret::default()), print_of_text(&document.to_yaml().unwrap()));
    }
}
