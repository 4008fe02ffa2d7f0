//! What the operator owns of a stream's and a consumer's settings: laid over what the server has, so that
//! everything else stays.

use std::time::Duration;

use flutecast_nats::api::StreamInfo;
use serde_json::{Map, Value, json};

use crate::jetstream::streams::{Owner, SourceStream, Storage, StreamConfig, TenantStreams};

/// Metadata: the namespace of the Tenant that owns the stream.
pub(crate) const OWNER_NAMESPACE: &str = "flutecast.io/owner-namespace";
/// Metadata: the name of the Tenant that owns the stream.
pub(crate) const OWNER_NAME: &str = "flutecast.io/owner-name";
/// Metadata: the uid of the Tenant that owns the stream; left out for a folder's objects, and after a Tenant
/// let go of it.
pub(crate) const OWNER_UID: &str = "flutecast.io/owner-uid";
/// Metadata: the installation that looks after the stream; left out in folder mode.
pub(crate) const INSTALLATION: &str = "flutecast.io/realm";
/// Metadata: what becomes of the stream when its Tenant goes; left out in folder mode.
pub(crate) const ON_DELETE: &str = "flutecast.io/on-delete";
/// Metadata of a source's stream: how its messages reach the tenant's stream.
pub(crate) const READING: &str = "flutecast.io/reading";
/// Metadata of a source's stream: the sequence from which `READING` holds.
pub(crate) const READ_FROM: &str = "flutecast.io/read-from";

/// Who a stream that exists belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// To the one who asks.
    Ours,
    /// To somebody else, described in words.
    Other(String),
}

/// Whether the stream belongs to `owner`. A stream without a uid belongs to whoever has the namespace and the
/// name: a folder's objects have no uid, and a Tenant that was deleted with `Keep` may come back with another
/// one.
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

/// The metadata that says whose a stream is, and what becomes of it.
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

/// Lays the operator's settings over `current`, the settings that the stream has (empty for one that doesn't
/// exist).
pub(crate) fn lay_over(current: &Map<String, Value>, wanted: &StreamConfig) -> Map<String, Value> {
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
    set("max_age", json!(nanoseconds(*max_age)));
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
    // What would lose messages that the Tenant's retention keeps, or let devices lose them
    // (docs/decisions/111-stream-settings.md).
    set("max_msgs", json!(-1));
    set("discard_new_per_subject", json!(false));
    set("no_ack", json!(false));
    set("allow_rollup_hdrs", json!(false));
    match republish {
        Some((from, to)) => set("republish", json!({"src": from, "dest": to})),
        None => {
            config.remove("republish");
        }
    }
    config.remove("subject_transform");
    config
}

/// Sets metadata, or takes it away where the value is none; what others wrote there stays.
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

/// One entry of the tenant stream's `sources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceEntry {
    /// The source's stream.
    pub(crate) stream: String,
    /// The subject as it is published.
    pub(crate) from: String,
    /// The tenant's subject.
    pub(crate) to: String,
    /// The sequence of the source's stream from which it is read.
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

/// Lays the operator's sources over the stream's. An entry that reads the right subject stays as it is: where
/// it started to read is history, and the server keeps its place itself. So do the entries of the streams in
/// `kept`.
pub(crate) fn lay_sources_over(config: &mut Map<String, Value>, upstreams: &[SourceEntry], kept: &[String]) {
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
    // The server keeps the order that it is given; ours is by name, so that the same sources make the same
    // list.
    sources.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    if sources.is_empty() {
        config.remove("sources");
    } else {
        config.insert("sources".to_owned(), Value::Array(sources));
    }
}

/// The source streams whose entry in `current` is not in `wanted` as it is, each with the subject that it is
/// read on: those that end or change.
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

/// The settings without the entries of the streams in `names`.
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

/// The settings of a payload source's consumer: one pod at a time reads, so that each device's items stay in
/// order; the next pod takes over when it is gone.
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

/// How long a pod may work on one message before another pod gets it.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How many messages may be with a pod at once.
const MAX_ACK_PENDING: u64 = 1000;
/// After what silence of the reading pod the next one takes over.
const PINNED_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether two whole configurations mean the same: what is zero, empty or false may be written or left out.
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

/// The settings that a stream was to have by the last change of it, and that NATS left as they were. Sources
/// and metadata are not looked at: NATS adds to them.
pub(crate) fn not_taken<'a>(wanted: &'a Map<String, Value>, now: &Map<String, Value>) -> Vec<&'a str> {
    let differs = |key: &str, wanted: &Value| {
        let now = now.get(key).unwrap_or(&Value::Null);
        wanted != now && !(is_default(wanted) && is_default(now))
    };
    let looked_at = wanted.iter().filter(|(key, _)| !["sources", "metadata"].contains(&key.as_str()));
    looked_at.filter(|(key, value)| differs(key, value)).map(|(key, _)| key.as_str()).collect()
}

/// Lays `wanted` over `current`, key by key.
pub(crate) fn merged(current: &Map<String, Value>, wanted: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = current.clone();
    merged.extend(wanted.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

/// The server leaves out what is zero, empty or false.
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
