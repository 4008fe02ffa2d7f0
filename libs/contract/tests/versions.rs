//! Two versions at once: during an upgrade, or after `helm rollback`, one reads what the other wrote.
//!
//! `released/` holds documents as the last release writes them, byte by byte. A field that comes is optional
//! and is left out where nobody uses it, so these files change only with `apiVersion`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::shard;
use serde_json::{Value, json};

const SHARD: &str = include_str!("released/shard.yaml");
const ACCESS: &str = include_str!("released/access.yaml");

#[test]
fn documents_of_the_last_release_are_read_and_written_as_they_were() {
    let document = ShardDocument::from_yaml(SHARD).unwrap();
    assert_eq!(document.to_yaml().unwrap(), SHARD, "an upgrade would write every shard anew");
    // The digest is over the content: where it comes out otherwise, all pods would have to confirm everything
    // anew.
    assert_eq!(shard::revision(&document), document.revision);
    assert_eq!(AccessDocument::from_yaml(ACCESS).unwrap().to_yaml().unwrap(), ACCESS);
}

#[test]
fn fields_of_a_newer_version_are_left_out() {
    // What may stand in a newer version's document: one more field in each place that has fields of its own.
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
fn what_would_be_misread_is_refused() {
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

/// The document with a field that no version has, at each of these pointers.
fn with_more(text: &str, places: &[&str]) -> String {
    let mut document: Value = serde_yaml::from_str(text).unwrap();
    for place in places {
        let object = document.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
        object.insert("ofANewerVersion".to_owned(), json!({"deep": [1, "two", null]}));
    }
    // JSON is YAML.
    document.to_string()
}
