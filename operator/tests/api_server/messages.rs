//! The condition `MessagesUnderstood` on a real API server and a real broker.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testkit::wait_until;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::manifests::{device, format, tenant};
use crate::presence::until_presence;
use crate::support::{Cluster, SOON, said};

/// By then the condition says what a device sent, without anybody watching.
pub(crate) const LOOKED_AT: Duration = Duration::from_secs(60);
/// After a write the next one waits this long.
const HELD: Duration = Duration::from_secs(10);

/// Waits until a Device's condition has this status and this reason. Returns its message.
pub(crate) async fn until_understood(cluster: &Cluster, name: &str, expected: &str) -> String {
    wait_until(&format!("MessagesUnderstood of {name} to be {expected}"), LOOKED_AT + HELD, async || {
        let (understood, message) = understood(&cluster.get("device", name, "default").await.unwrap());
        if understood == expected { Ok(message) } else { Err(format!("{understood}: {message}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()))
}

fn understood(device: &Value) -> (String, String) {
    let conditions = device["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == "MessagesUnderstood").unwrap();
    let text = |field: &str| condition[field].as_str().unwrap();
    (format!("{} {}", text("status"), text("reason")), text("message").to_owned())
}

async fn publish(cluster: &Cluster, names: &[&str], payload: &str) {
    let client = cluster.nats.client().await.unwrap();
    for name in names {
        let device = cluster.get("device", name, "default").await.unwrap();
        let subject = device["status"]["subjects"][0].as_str().unwrap().to_owned();
        client.publish(subject, payload.to_owned().into()).await.unwrap();
    }
    client.flush().await.unwrap();
}

/// A format with a time, and an Enum.
const STRICT: &str = "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {name: strict}\nspec:
  timestamp: {pointer: /ts, unit: Milliseconds, maxAge: 30s}
  fields:
  - {name: speed, pointer: /v, type: Number}
  - {name: state, pointer: /st, type: Enum, values: {'0': idle, '1': running}}\n";

/// Faults of devices: name, what it sends, by how many seconds its clock is wrong, and what is said of it.
const FAULTS: [(&str, &str, i64, &str, &str); 4] = [
    ("slow", r#"{"ts":TS,"v":1,"st":1}"#, -40, "False TooOld", "channel power at /ts: "),
    ("ahead", r#"{"ts":TS,"v":1,"st":1}"#, 3600, "True ClockAhead", "channel power at /ts: "),
    ("enum", r#"{"ts":TS,"v":1,"st":7}"#, 0, "False BadField", "channel power, field state at /st: "),
    ("pointer", r#"{"ts":TS,"v":1,"St":1}"#, 0, "True FieldNotFound", "channel power, field state at /st: "),
];

/// Publishes what a device sends whose clock is wrong by so many seconds.
async fn publish_at(cluster: &Cluster, name: &str, payload: &str, seconds: i64) {
    let own = Timestamp::now().as_millisecond() + seconds * 1000;
    publish(cluster, &[name], &payload.replace("TS", &own.to_string())).await;
}

/// Returns the Events about a Device with this reason: how often each was there.
async fn events(cluster: &Cluster, name: &str, reason: &str) -> Vec<u64> {
    let all = cluster.list("events.events.k8s.io", "default").await;
    let ours = all.iter().filter(|event| event["regarding"]["name"] == name && event["reason"] == reason);
    ours.map(|event| event["series"]["count"].as_u64().unwrap_or(1)).collect()
}

async fn until_told(cluster: &Cluster, name: &str, reason: &str) {
    wait_until("the Event", SOON, async || {
        let told = events(cluster, name, reason).await;
        if told.is_empty() { Err("there is none") } else { Ok(()) }
    })
    .await
    .unwrap();
    assert_eq!(events(cluster, name, reason).await, [1], "{name} {reason}");
}

fn devices(versions: &BTreeMap<String, String>) -> Vec<(&String, &String)> {
    versions.iter().filter(|(name, _)| name.starts_with("Device/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_not_understood_are_named_and_heal() {
    let mut cluster = Cluster::with_operator().await;
    let with_stale_after = device("followed", "t", "C-1", "on-off")
        .replace("format: on-off}", "format: on-off, staleAfter: 1h}");
    let all = [
        tenant("t", ""),
        format("on-off"),
        with_stale_after,
        device("plain", "t", "C-2", "on-off"),
        device("quiet", "t", "C-3", "on-off"),
    ];
    cluster.apply(&all.join("---\n")).await;
    let faulty = FAULTS.map(|(name, ..)| device(name, "t", name, "strict"));
    cluster.apply(&format!("{STRICT}---\n{}", faulty.join("---\n"))).await;
    cluster.until_all_ready().await;
    until_understood(&cluster, "quiet", "Unknown NoMessages").await;
    for (name, payload, seconds, _, _) in FAULTS {
        // So many have to lack a field.
        for _ in 0..20 {
            publish_at(&cluster, name, payload, seconds).await;
        }
    }
    let both = ["followed", "plain"];
    publish(&cluster, &both, r#"{"on":tr"#).await;
    for name in both {
        let message = until_understood(&cluster, name, "False Malformed").await;
        assert!(message.starts_with("channel power: at byte 6: "), "{message}");
        until_told(&cluster, name, "Malformed").await;
        let device = cluster.get("device", name, "default").await.unwrap();
        assert_eq!(said(&device).0, "Ready=True Accepted");
    }
    for (name, _, _, expected, words) in FAULTS {
        let message = until_understood(&cluster, name, expected).await;
        assert!(message.starts_with(words), "{name}: {message}");
    }
    let table = cluster.kubectl(&["get", "fd"]).await;
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("plain").contains("Malformed") && line("quiet").contains("NoMessages"), "{table}");
    the_metric_says(&cluster, &[("False", 4.0), ("True", 2.0), ("Unknown", 1.0)]).await;
    // Its presence may have had to wait for the write about its messages.
    until_presence(&cluster, "followed", "Online").await;
    a_restart_writes_nothing(&mut cluster).await;
    publish(&cluster, &both, r#"{"on":true}"#).await;
    for (name, ..) in FAULTS {
        publish_at(&cluster, name, r#"{"ts":TS,"v":1,"st":1}"#, 0).await;
    }
    for (name, ..) in FAULTS {
        until_understood(&cluster, name, "True Understood").await;
    }
    for name in both {
        until_understood(&cluster, name, "True Understood").await;
        until_told(&cluster, name, "Understood").await;
    }
    the_metric_says(&cluster, &[("False", 0.0), ("True", 6.0), ("Unknown", 1.0)]).await;
    assert_eq!(events(&cluster, "plain", "Malformed").await, [1]);
}

async fn the_metric_says(cluster: &Cluster, counts: &[(&str, f64)]) {
    let operator = cluster.operator.as_ref().unwrap();
    for (status, count) in counts {
        let metric = format!("flutecast_operator_devices_messages_understood{{status=\"{status}\"}}");
        wait_until(&metric, SOON, async || {
            let now = operator.metric(&metric).await;
            if now == *count { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_sends_from_the_start_costs_two_writes() {
    let cluster = Cluster::with_operator().await;
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let watched = |name: &&str| {
        device(name, "t", name, "on-off").replace("format: on-off}", "format: on-off, staleAfter: 1h}")
    };
    cluster.apply(&format!("{}---\n{}", tenant("t", ""), format("on-off"))).await;
    cluster.until("tenant", "t", "Ready=True Accepted").await;
    cluster.apply(&names.iter().map(watched).collect::<Vec<_>>().join("---\n")).await;
    cluster.until_all_ready().await;
    publish(&cluster, &names[..4], r#"{"on":true}"#).await;
    // These begin later, within the time in which none is called Silent.
    tokio::time::sleep(Duration::from_secs(5)).await;
    publish(&cluster, &names[4..], r#"{"on":tr"#).await;
    for name in names {
        until_presence(&cluster, name, "Online").await;
        let device = cluster.get("device", name, "default").await.unwrap();
        let expected = if name < "e" { "True Understood" } else { "False Malformed" };
        assert_eq!(understood(&device).0, expected, "{name}, in the write that says that it is Online");
    }
    let writes = cluster.operator.as_ref().unwrap().api_writes(&["kind=\"Device\"", "ApplyStatus"]).await;
    assert_eq!(writes, 2.0 * names.len() as f64);
}

/// Another operator takes over, and looks at the same messages, twice.
async fn a_restart_writes_nothing(cluster: &mut Cluster) {
    let before = cluster.versions().await;
    for _ in 0..2 {
        let mut operator = cluster.operator.take().unwrap();
        operator.process.terminate(SOON).await.unwrap();
        cluster.start_operator().await;
        let operator = cluster.operator.as_ref().unwrap();
        wait_until("a look", SOON, async || {
            let looks = operator.metric("flutecast_operator_looks_total{result=\"Done\"}").await;
            if looks >= 1.0 { Ok(()) } else { Err(looks.to_string()) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", operator.process.tail()));
    }
    let after = cluster.versions().await;
    assert_eq!(devices(&after), devices(&before));
}
