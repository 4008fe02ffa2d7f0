//! The settings of streams and consumers that the operator owns. They are merged into the settings on the
//! server, so that all others stay.

use std::time::Duration;

use flutecast_nats::api::StreamInfo;
use serde_json::{Map, Value, json};

use crate::jetstream::streams::{Owner, SourceStream, Storage, StreamConfig, TenantStreams};

/// Metadata: the namespace of the Tenant that owns the stream.
pub(crate) const OWNER_NAMESPACE: &str = "flutecast.io/owner-namespace";
/// Metadata: the name of the Tenant that owns the stream.
pub(crate) const OWNER_NAME: &str = "flutecast.io/owner-name";
/// Metadata: the uid of the Tenant that owns the stream. Absent for objects of a folder, and after a Tenant
/// released the stream.
pub(crate) const OWNER_UID: &str = "flutecast.io/owner-uid";
/// Metadata: the installation that manages the stream. Absent in folder mode.
pub(crate) const INSTALLATION: &str = "flutecast.io/realm";
/// Metadata: what happens to the stream when its Tenant goes. Absent in folder mode.
pub(crate) const ON_DELETE: &str = "flutecast.io/on-delete";
/// Metadata of a source's stream: how its messages reach the tenant's stream.
pub(crate) const READING: &str = "flutecast.io/reading";
/// Metadata of a source's stream: the sequence from which `READING` holds.
pub(crate) const READ_FROM: &str = "flutecast.io/read-from";

/// The owner of an existing stream, relative to a Tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// This Tenant.
    Ours,
    /// Another one, described in words.
    Other(String),
}

/// Returns whether the stream belongs to `owner`. A stream without a uid belongs to the Tenant with its
/// namespace and name: objects of a folder have no uid, and a Tenant that was deleted with `Keep` may come
/// back with another one.
pub(crate) fn ownership(stream: &StreamInfo, owner: &Owner) -> Ownership {
    let Owner { namespace, name, uid, installation: _ } = owner;
    let (Some(its_namespace), Some(its_name)) =
        (stream.metadata(OWNER_NAMESPACE), stream.metadata(OWNER_NAME))
    else {
        return Ownership::Other("nobody (it has no flutecast.io/owner-name in its metadata)".to_owned());
    };
    if its_namespace != namespace || its_name != name {
        return Ownership::Other(format!("Tenant/{its_namespace}/{its_name}"));
    }
    match (stream.metadata(OWNER_UID), uid) {
        (Some(its_uid), Some(uid)) if its_uid != uid => {
            Ownership::Other(format!("another Tenant/{its_namespace}/{its_name}, with uid {its_uid}"))
        }
        _ => Ownership::Ours,
    }
}

/// Returns the metadata about a stream's owner, and what happens when it goes.
pub(crate) fn owner_metadata(wanted: &TenantStreams) -> [(&'static str, Option<String>); 5] {
    let Owner { namespace, name, uid, installation } = &wanted.owner;
    let on_delete = installation.as_ref().map(|_| wanted.on_delete.as_str().to_owned());
    [
        (OWNER_NAMESPACE, Some(namespace.clone())),
        (OWNER_NAME, Some(name.clone())),
        (OWNER_UID, uid.clone()),
        (INSTALLATION, installation.clone()),
        (ON_DELETE, on_delete),
    ]
}

/// Merges the operator's settings into `current`, the settings of the stream; empty if it doesn't exist.
pub(crate) fn merge_stream(current: &Map<String, Value>, wanted: &StreamConfig) -> Map<String, Value> {
    let StreamConfig {
        name,
        description,
        subjects,
        max_age,
        max_messages_per_subject,
        max_bytes,
        storage,
        replicas,
        duplicate_window,
        allow_direct,
        allow_rollup,
        republish,
    } = wanted;
    let mut config = current.clone();
    let mut set = |key: &str, value: Value| {
        config.insert(key.to_owned(), value);
    };
    set("name", json!(name));
    set("description", json!(description));
    set("subjects", json!(subjects));
    set("retention", json!("limits"));
    set("discard", json!("old"));
    set("max_age", json!(max_age.map_or(0, nanoseconds)));
    set("max_msgs_per_subject", limit(*max_messages_per_subject));
    set("max_bytes", limit(*max_bytes));
    set(
        "storage",
        json!(match storage {
            Storage::File => "file",
            Storage::Memory => "memory",
        }),
    );
    set("num_replicas", json!(replicas));
    set("duplicate_window", json!(nanoseconds(*duplicate_window)));
    set("allow_direct", json!(allow_direct));
    // Other values would lose messages within the Tenant's retention, or let devices delete them where they
    // publish (docs/decisions/111-stream-settings.md).
    set("max_msgs", json!(-1));
    set("discard_new_per_subject", json!(false));
    set("no_ack", json!(false));
    set("allow_rollup_hdrs", json!(allow_rollup));
    match republish {
        Some((from, to)) => set("republish", json!({"src": from, "dest": to})),
        None => {
            config.remove("republish");
        }
    }
    config.remove("subject_transform");
    config
}

/// Sets metadata, or removes it where the value is `None`. Metadata of others stays.
pub(crate) fn set_metadata(config: &mut Map<String, Value>, entries: &[(&'static str, Option<String>)]) {
    let metadata = config.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        for (key, value) in entries {
            match value {
                Some(value) => metadata.insert((*key).to_owned(), json!(value)),
                None => metadata.remove(*key),
            };
        }
    }
}

/// Makes a stream capture nothing: NATS wants a subject, and on one of its own name nobody publishes.
pub(crate) fn capture_nothing(config: &mut Map<String, Value>, name: &str) {
    config.insert("subjects".to_owned(), json!([name]));
}

/// One entry of the tenant stream's `sources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceEntry {
    pub(crate) stream: String,
    /// The published subject.
    pub(crate) from: String,
    /// The tenant's subject.
    pub(crate) to: String,
    /// The sequence from which the source's stream is read.
    pub(crate) start: u64,
}

impl SourceEntry {
    fn transforms(&self) -> Value {
        json!([{"src": self.from, "dest": self.to}])
    }

    fn is(&self, entry: &Value) -> bool {
        entry["name"] == self.stream.as_str() && entry["subject_transforms"] == self.transforms()
    }
}

/// Merges the operator's sources into the stream's. An entry that reads the right subject stays as it is: its
/// start only matters at the beginning, and the server tracks its progress itself. The entries of the streams
/// in `kept` stay too.
pub(crate) fn merge_sources(config: &mut Map<String, Value>, upstreams: &[SourceEntry], kept: &[String]) {
    let current = entries(config);
    let is_kept = |entry: &&Value| kept.iter().any(|name| entry["name"] == name.as_str());
    let mut sources: Vec<Value> = current.iter().filter(is_kept).cloned().collect();
    sources.extend(upstreams.iter().map(|upstream| {
        current.iter().find(|entry| upstream.is(entry)).cloned().unwrap_or_else(|| {
            json!({
                "name": upstream.stream,
                "opt_start_seq": upstream.start.max(1),
                "subject_transforms": upstream.transforms(),
            })
        })
    }));
    // The server keeps the order of the list. Sorted by name, equal sources make an equal list.
    sources.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    if sources.is_empty() {
        config.remove("sources");
    } else {
        config.insert("sources".to_owned(), Value::Array(sources));
    }
}

/// Returns the source streams whose entry in `current` is not in `wanted`, each with the subject that is
/// read: those that end or change.
pub(crate) fn ending_sources(
    current: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Vec<(String, String)> {
    let wanted = entries(wanted);
    entries(current)
        .iter()
        .filter(|entry| !wanted.contains(entry))
        .filter_map(|entry| {
            let subject = entry["subject_transforms"][0]["src"].as_str().unwrap_or(">");
            Some((entry["name"].as_str()?.to_owned(), subject.to_owned()))
        })
        .collect()
}

/// Returns the settings without the sources in `names`.
pub(crate) fn without_sources(config: &Map<String, Value>, names: &[String]) -> Map<String, Value> {
    let mut config = config.clone();
    if let Some(sources) = config.get_mut("sources").and_then(Value::as_array_mut) {
        sources.retain(|entry| !names.iter().any(|name| entry["name"] == name.as_str()));
    }
    config
}

fn entries(config: &Map<String, Value>) -> Vec<Value> {
    config.get("sources").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Returns the settings of a payload source's consumer. One pod at a time reads, so that each device's items
/// stay in order; when it is gone, the next pod takes over.
pub(crate) fn split_consumer(source: &SourceStream, consumer: &str) -> Map<String, Value> {
    let settings = json!({
        "durable_name": consumer,
        "name": consumer,
        "description": format!("Splits {} into the tenant's subjects", source.stream.name),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": nanoseconds(ACK_WAIT),
        "max_ack_pending": MAX_ACK_PENDING,
        "replay_policy": "instant",
        "num_replicas": 0,
        "priority_groups": [consumer],
        "priority_policy": "pinned_client",
        "priority_timeout": nanoseconds(PINNED_TIMEOUT),
    });
    settings.as_object().cloned().unwrap_or_default()
}

/// The time after which another pod gets a message that is not acknowledged.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// The most messages that a pod has at once.
const MAX_ACK_PENDING: u64 = 1000;
/// The silence of the reading pod after which the next one takes over.
const PINNED_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns whether two whole configurations are equivalent: values that are zero, empty or false may be
/// absent.
pub(crate) fn same(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let said = |config: &Map<String, Value>| -> Map<String, Value> {
        config
            .iter()
            .filter(|(_, value)| !is_default(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    said(one) == said(other)
}

/// Returns the settings of the last update that NATS left as they were. Sources and metadata are not
/// compared, because NATS adds to them.
pub(crate) fn not_taken<'a>(wanted: &'a Map<String, Value>, now: &Map<String, Value>) -> Vec<&'a str> {
    let differs = |key: &str, wanted: &Value| {
        let now = now.get(key).unwrap_or(&Value::Null);
        wanted != now && !(is_default(wanted) && is_default(now))
    };
    let looked_at = wanted.iter().filter(|(key, _)| !["sources", "metadata"].contains(&key.as_str()));
    looked_at.filter(|(key, value)| differs(key, value)).map(|(key, _)| key.as_str()).collect()
}

/// Returns `current` with the keys of `wanted` replaced.
pub(crate) fn merged(current: &Map<String, Value>, wanted: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = current.clone();
    merged.extend(wanted.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

/// The server omits values that are zero, empty or false.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

fn limit(limit: Option<u64>) -> Value {
    match limit {
        Some(limit) => json!(limit),
        None => json!(-1),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
