//! Presence on a real API server and a real broker: it is determined, survives outages, and is written only
//! when it changes.

use std::time::Duration;

use flutecast_testkit::wait_until;
use k8s_openapi::jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::manifests::{device, format, tenant};
use crate::messages::until_understood;
use crate::support::{Cluster, SOON};

const STALE_AFTER: Duration = Duration::from_secs(3);

/// Returns a Device whose channel `power` is stale after three seconds.
fn watched(name: &str, code: &str) -> String {
    device(name, "t", code, "on-off").replace("format: on-off}", "format: on-off, staleAfter: 3s}")
}

/// Returns the presence, and its last transition.
async fn presence(cluster: &Cluster, name: &str) -> (String, Option<Timestamp>) {
    let device = cluster.get("device", name, "default").await.unwrap();
    let status = &device["status"];
    let since = status["lastTransition"].as_str().map(|time| time.parse().unwrap());
    (status["presence"].as_str().unwrap_or_default().to_owned(), since)
}

pub(crate) async fn until_presence(cluster: &Cluster, name: &str, expected: &str) -> Option<Timestamp> {
    wait_until(&format!("{name} to be {expected}"), SOON, async || {
        let (said, since) = presence(cluster, name).await;
        if said == expected { Ok(since) } else { Err(format!("{said} since {since:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()))
}

async fn subject(cluster: &Cluster, name: &str) -> String {
    let device = cluster.get("device", name, "default").await.unwrap();
    device["status"]["subjects"][0].as_str().unwrap().to_owned()
}

/// Publishes ten messages a second until it is aborted.
async fn send(cluster: &Cluster, name: &str) -> JoinHandle<()> {
    let subject = subject(cluster, name).await;
    let client = cluster.nats.client().await.unwrap();
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            client.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
        }
    })
}

/// Returns the number of successful lookups.
async fn lookups(cluster: &Cluster) -> f64 {
    let operator = cluster.operator.as_ref().unwrap();
    operator.metric("flutecast_operator_presence_lookups_total{result=\"Done\"}").await
}

/// Waits until this many more lookups succeeded.
async fn until_looked_up(cluster: &Cluster, more: f64) {
    let before = lookups(cluster).await;
    wait_until("lookups", SOON, async || {
        let now = lookups(cluster).await;
        if now >= before + more { Ok(()) } else { Err(format!("{now} after {before}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_written_only_when_it_changes() {
    let mut cluster = Cluster::with_operator().await;
    let all = [
        tenant("t", ""),
        format("on-off"),
        watched("busy", "C-1"),
        watched("quiet", "C-2"),
        device("plain", "t", "C-3", "on-off"),
    ];
    cluster.apply(&all.join("---\n")).await;
    cluster.until_all_ready().await;
    let sender = send(&cluster, "busy").await;
    until_presence(&cluster, "busy", "Online").await;
    until_presence(&cluster, "quiet", "Silent").await;
    assert_eq!(presence(&cluster, "plain").await, ("Unknown".to_owned(), None));
    until_understood(&cluster, "busy", "True Understood").await;
    messages_and_outages_write_nothing(&mut cluster).await;
    sender.abort();
    a_device_is_silent_from_its_stale_after_on(&cluster).await;
    the_first_message_makes_a_device_online(&cluster).await;
    the_table_shows_presence(&cluster).await;
}

async fn messages_and_outages_write_nothing(cluster: &mut Cluster) {
    // Ten messages a second, and not one write.
    let before = cluster.versions().await;
    until_looked_up(cluster, 4.0).await;
    assert_eq!(cluster.versions().await, before);
    // Another operator takes over, and NATS comes back before the devices do: no write either.
    let mut operator = cluster.operator.take().unwrap();
    operator.process.terminate(SOON).await.unwrap();
    cluster.start_operator().await;
    until_looked_up(cluster, 4.0).await;
    cluster.nats.stop().await.unwrap();
    cluster.until("tenant", "t", "Ready=False BrokerAway Reconciling=True").await;
    // Longer than a device may be silent.
    tokio::time::sleep(STALE_AFTER).await;
    cluster.nats.restart().await.unwrap();
    cluster.until("tenant", "t", "Ready=True Accepted").await;
    until_looked_up(cluster, 4.0).await;
    let after = cluster.versions().await;
    assert_eq!(devices(&after), devices(&before));
}

async fn a_device_is_silent_from_its_stale_after_on(cluster: &Cluster) {
    let last = Timestamp::now();
    let since = until_presence(cluster, "busy", "Silent").await.unwrap();
    let expected = last + STALE_AFTER;
    let off = since.duration_since(expected).as_secs_f64();
    assert!((-2.0..=1.0).contains(&off), "{since} instead of {expected}");
    wait_until("the Event", SOON, async || {
        let described = cluster.kubectl(&["describe", "fd", "busy"]).await;
        let has_event = described.contains("no channel has sent anything for its staleAfter");
        if has_event { Ok(()) } else { Err(described) }
    })
    .await
    .unwrap();
}

async fn the_first_message_makes_a_device_online(cluster: &Cluster) {
    let client = cluster.nats.client().await.unwrap();
    client.publish(subject(cluster, "quiet").await, r#"{"on":true}"#.into()).await.unwrap();
    client.flush().await.unwrap();
    until_presence(cluster, "quiet", "Online").await;
    let operator = cluster.operator.as_ref().unwrap();
    for (presence, count) in [("Online", 1.0), ("Silent", 1.0), ("Unknown", 0.0)] {
        let metric = format!("flutecast_operator_devices{{presence=\"{presence}\"}}");
        wait_until(&metric, SOON, async || {
            let now = operator.metric(&metric).await;
            if now == count { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .unwrap();
    }
}

async fn the_table_shows_presence(cluster: &Cluster) {
    let table = cluster.kubectl(&["get", "fd"]).await;
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        columns,
        ["NAME", "TENANT", "CODE", "IOTID", "PRESENCE", "FOR", "MESSAGES", "READY", "REASON", "SINCE", "AGE"]
    );
    assert!(table.lines().all(|line| line.trim_end().len() <= 120), "{table}");
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let cells = line("busy");
    let cells: Vec<&str> = cells.split_whitespace().collect();
    assert_eq!(cells[4], "Silent", "{table}");
    assert!(cells[5].ends_with('s'), "since when? {table}");
    assert!(line("quiet").contains("Online") && line("plain").contains("Unknown"), "{table}");
}

/// Returns the resource versions of the Devices.
fn devices(versions: &std::collections::BTreeMap<String, String>) -> Vec<(&String, &String)> {
    versions.iter().filter(|(name, _)| name.starts_with("Device/")).collect()
}
