//! Documents of another version, which are read during an upgrade or after `helm rollback`.
//!
//! `released/` holds documents as the last release writes them, byte by byte. New fields are optional and
//! left out where unused, so these files change only with `apiVersion`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::shard;
use serde_json::{Value, json};

const SHARD: &str = include_str!("released/shard.yaml");
const ACCESS: &str = include_str!("released/access.yaml");

#[test]
fn documents_of_the_last_release_keep_their_bytes() {
    let document = ShardDocument::from_yaml(SHARD).unwrap();
    assert_eq!(document.to_yaml().unwrap(), SHARD, "an upgrade would write every shard again");
    // With another digest, all pods would have to confirm every revision again.
    assert_eq!(shard::revision(&document), document.revision);
    assert_eq!(AccessDocument::from_yaml(ACCESS).unwrap().to_yaml().unwrap(), ACCESS);
}

#[test]
fn fields_of_a_newer_version_are_ignored() {
    // A newer version may add a field to each of these objects.
    let places = [
        "",
        "/settings",
        "/settings/sources/0",
        "/formats/telemetry",
        "/formats/telemetry/timestamp",
        "/formats/telemetry/delivery",
        "/formats/telemetry/fields/0",
        "/devices/k3v6d2ncqhb5a",
        "/devices/k3v6d2ncqhb5a/channels/power",
    ];
    let newer = with_more(SHARD, &places);
    assert_eq!(ShardDocument::from_yaml(&newer).unwrap(), ShardDocument::from_yaml(SHARD).unwrap());
    let newer = with_more(ACCESS, &["", "/tenants/acme", "/tenants/acme/tokens/hall-3"]);
    assert_eq!(AccessDocument::from_yaml(&newer).unwrap(), AccessDocument::from_yaml(ACCESS).unwrap());
}

#[test]
fn unknown_versions_and_variants_are_refused() {
    for (from, to, error) in [
        (
            "apiVersion: mapping.flutecast.io/v1",
            "apiVersion: mapping.flutecast.io/v2",
            "mapping.flutecast.io/v2",
        ),
        ("codec: JSON", "codec: CBOR", "unknown variant"),
        ("policy: Every", "policy: Sometimes", "unknown variant"),
    ] {
        assert!(SHARD.contains(from), "{from}");
        let refusal = ShardDocument::from_yaml(&SHARD.replace(from, to)).unwrap_err().to_string();
        assert!(refusal.contains(error), "{to}: {refusal}");
    }
}

/// Returns the document with a field that no version has at each of these pointers.
fn with_more(text: &str, places: &[&str]) -> String {
    let mut document: Value = serde_yaml::from_str(text).unwrap();
    for place in places {
        let object = document.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
        object.insert("ofANewerVersion".to_owned(), json!({"deep": [1, "two", null]}));
    }
    // JSON is YAML.
    document.to_string()
}
